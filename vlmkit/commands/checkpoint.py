"""Checkpoints on the command line: the directory of a training run, or that of a checkpoint itself."""

from __future__ import annotations

from pathlib import Path

from vlmkit.registry import suggestion


class CheckpointError(ValueError):
    """A directory without a checkpoint."""


def find_checkpoint(run_directory: Path) -> Path:
    """The directory itself or its `checkpoint`, whichever holds a config.json. Raises CheckpointError."""
    candidates = (run_directory, run_directory / "checkpoint")
    for candidate in candidates:
        if (candidate / "config.json").is_file():
            return candidate
    if not run_directory.exists():
        _refuse_named(str(run_directory))
        siblings = [path.name for path in run_directory.parent.iterdir() if path.is_dir()] if run_directory.parent.is_dir() else []
        raise CheckpointError(f"there is no directory {str(run_directory)!r};{suggestion(run_directory.name, siblings)}".rstrip(";"))
    if not run_directory.is_dir():
        raise CheckpointError(f"{str(run_directory)!r} is a file; name the directory of a run or checkpoint")
    if (run_directory / "run.json").is_file():
        unfinished = "this run has not finished, so it has no checkpoint yet; the training command goes on from where it stopped"
        raise CheckpointError(f"{str(run_directory)!r}: {unfinished}")
    raise CheckpointError(f"no checkpoint in {str(run_directory)!r}: neither config.json nor checkpoint/config.json is there")


def _refuse_named(name: str) -> None:
    from vlmkit.zoo import list_models  # reads the file of every family, which nobody has to wait for but here

    if name in list_models():
        raise CheckpointError(
            f"{name!r} is a named model, of which no trained weights are here: train it, or give the directory of a run or checkpoint"
        )
