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
        siblings = [path.name for path in run_directory.parent.iterdir() if path.is_dir()] if run_directory.parent.is_dir() else []
        raise CheckpointError(f"there is no directory {str(run_directory)!r};{suggestion(run_directory.name, siblings)}".rstrip(";"))
    if not run_directory.is_dir():
        raise CheckpointError(f"{str(run_directory)!r} is a file; name the directory of a run or checkpoint")
    raise CheckpointError(f"no checkpoint in {str(run_directory)!r}: neither config.json nor checkpoint/config.json is there")
