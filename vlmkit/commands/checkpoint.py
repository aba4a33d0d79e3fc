"""Checkpoints on the command line: a run, a checkpoint's directory, or a repository of a hub."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from vlmkit.architecture import Architecture
from vlmkit.checkpoint_directory import CheckpointError, checkpoint_directory
from vlmkit.checkpoint_files import look_at, reading
from vlmkit.spec import SpecError

__all__ = ["CheckpointError", "architecture_of", "find_checkpoint"]


def find_checkpoint(what: str | os.PathLike[str]) -> Path:
    """As `vlmkit.load` finds it. Raises CheckpointError."""
    return checkpoint_directory(what)


def architecture_of(directory: str) -> Architecture:
    """What a run trains, be it finished or not, or what a checkpoint is of: its config is read, and no weights. Raises CheckpointError."""
    told = _run_says(Path(directory))
    if told is None:
        place = checkpoint_directory(directory)
        look_at(place)
        if not (place / "config.json").exists():
            return _published(str(place))
        told = _object(place / "config.json")
        if told.get("model_type") != "vlmkit":
            return _published(str(place))
        told = told.get("architecture")
    try:
        return Architecture.from_dict(told or {})
    except SpecError as error:
        raise CheckpointError(f"{directory!r} describes no architecture that can be read: {error}") from None


def _run_says(run: Path) -> dict[str, Any] | None:
    """The architecture of a run that has no checkpoint yet: that of its last state, or of its configuration."""
    if not (run / "run.json").is_file() or (run / "checkpoint" / "config.json").is_file():
        return None
    for position in sorted((run / "state").glob("*/position.json"), reverse=True):
        if model := _object(position).get("model"):
            return dict(model["architecture"])
    begun = _object(run / "run.json").get("architecture")
    return begun if isinstance(begun, dict) else None


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{str(path)!r} holds no JSON object")
    return found


def _published(directory: str) -> Architecture:
    from vlmkit.checkpoints import family_of, model_type_of

    try:
        family = family_of(model_type_of(directory))
    except LookupError as error:
        raise CheckpointError(f"{directory!r}: {error}") from None
    with reading(directory):
        return family.described(directory)
