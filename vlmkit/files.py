"""Files and directories that are there whole or not at all, also where the process dies or the power goes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""Ends the name of what is still being written, beside the place where it will stand."""


def partial(path: Path) -> Path:
    return path.with_name(f"{path.name}{PARTIAL}")


def commit(written: Path, path: Path) -> None:
    """Call a finished file by its name once it is safe on disk."""
    _to_disk(written)
    os.replace(written, path)
    _to_disk(path.parent)


def write_whole(path: Path, data: bytes | str) -> None:
    """Text is written as UTF-8."""
    partial(path).write_bytes(data.encode() if isinstance(data, str) else data)
    commit(partial(path), path)


@contextmanager
def replace_directory(path: Path) -> Iterator[Path]:
    """An empty directory to write to, which takes the place of `path` when everything in it has reached the disk."""
    written = partial(path)
    shutil.rmtree(written, ignore_errors=True)
    written.mkdir(parents=True)
    yield written
    for file in written.rglob("*"):
        if file.is_file():
            _to_disk(file)
    shutil.rmtree(path, ignore_errors=True)
    written.rename(path)


def _to_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
