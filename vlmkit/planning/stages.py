"""Stages of a file as the planner reads them."""

from __future__ import annotations

from typing import Any

from vlmkit.architecture import PARTS, Architecture
from vlmkit.planning.job import PlanError
from vlmkit.spec import SpecError
from vlmkit.training.changed import changed
from vlmkit.training.stage_files import read_stages


def stage_of_file(path: str, name: str | None, model: Architecture) -> dict[str, Any]:
    """Fields of a Job from the stage of a stage file, its only one where no name is given; its model is what this stage and those before
    it make of `model`. Raises PlanError."""
    stages = read_stages(path)
    names = [stage.name for stage in stages]
    if name is None and len(stages) != 1:
        raise PlanError(f"{path} has {len(stages)} stages ({', '.join(names)}); name one with --stage")
    if name is not None and name not in names:
        raise PlanError(f"{path} has no stage {name!r}; it has {', '.join(names)}")
    found = stages[0 if name is None else names.index(name)]
    for stage in stages[: stages.index(found) + 1]:
        try:
            model = changed(model, stage)
        except SpecError as error:
            raise PlanError(f"{path}: stage {stage.name!r}: {error}") from None
    own = {path: rate for path, rate in found.paths.items() if path.partition(".")[0] in PARTS}  # a head is no part of the model
    fields: dict[str, Any] = {
        "model": model,
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
