"""Checkpoints on the command line: a run, a checkpoint's directory, or a repository of a hub."""

from __future__ import annotations

import os
from pathlib import Path

from vlmkit.checkpoint_directory import CheckpointError, checkpoint_directory

__all__ = ["CheckpointError", "find_checkpoint"]


def find_checkpoint(what: str | os.PathLike[str]) -> Path:
    """As `vlmkit.load` finds it. Raises CheckpointError."""
    return checkpoint_directory(what)
