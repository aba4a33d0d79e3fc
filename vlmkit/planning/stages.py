"""Stages of a file as the planner reads them."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from vlmkit.architecture import PARTS
from vlmkit.planning.job import PlanError


def stage_of_file(path: str, name: str | None) -> dict[str, Any]:
    """Fields of a Job from the stage of a stage file; its only one where no name is given. Raises PlanError."""
    if importlib.util.find_spec("vlmkit.training.stage_files") is None:
        raise PlanError("this vlmkit reads no stage files yet; say what learns with --learn, or name a stage with --stage")
    stages = importlib.import_module("vlmkit.training.stage_files").read_stages(path)
    names = [stage.name for stage in stages]
    if name is None and len(stages) != 1:
        raise PlanError(f"{path} has {len(stages)} stages ({', '.join(names)}); name one with --stage")
    found = next((stage for stage in stages if name in (None, stage.name)), None)
    if found is None:
        raise PlanError(f"{path} has no stage {name!r}; it has {', '.join(names)}")
    paths: dict[str, float | None] = getattr(found, "paths", None) or {part: 1.0 for part in PARTS if found.learns(part)}
    own = {path: rate for path, rate in paths.items() if path.partition(".")[0] in PARTS}  # a recipe's head is no part of the model
    fields: dict[str, Any] = {
        "name": found.name,
        "learns": tuple(path for path, rate in own.items() if rate is not None),
        "freezes": tuple(path for path, rate in own.items() if rate is None),
    }
    if found.adapters:
        fields["adapters"] = tuple(found.adapters.items())
    if found.batch_size:
        fields["micro_batch"] = found.batch_size
    if found.max_length is not None:
        fields["length"] = found.max_length
    return fields
