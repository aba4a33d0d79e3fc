"""Files and directories that are there whole or not at all, also where the process dies or the power goes."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""Ends the name of what is still being written, beside the place where it will stand."""


def partial(path: Path) -> Path:
    return path.with_name(f"{path.name}{PARTIAL}")


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """An error of the disk says of which path it is: Python's own do so where a file is opened, and not where it is written. Libraries in
    Rust (safetensors, tokenizers) have errors of their own, with the system's number in their words. Raises OSError; vlmkit's own errors
    stay what they are, for they say what was read meanwhile."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.strerror is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None or type(error).__module__.partition(".")[0] == "vlmkit":
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(path)) from None


def commit(written: Path, path: Path) -> None:
    """Call a finished file by its name once it is safe on disk."""
    _to_disk(written)
    os.replace(written, path)
    _to_disk(path.parent)


def write_whole(path: Path, data: bytes | str) -> None:
    """Text is written as UTF-8. Raises OSError with the path; what was there before is there then, and nothing beside it."""
    try:
        with writing(path):
            partial(path).write_bytes(data.encode() if isinstance(data, str) else data)
            commit(partial(path), path)
    except BaseException:
        partial(path).unlink(missing_ok=True)
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` when it has reached the disk, and is gone where something fails before.
    Raises OSError with the path."""
    try:
        with writing(path):
            yield partial(path)
            commit(partial(path), path)
    finally:
        partial(path).unlink(missing_ok=True)


@contextmanager
def replace_directory(path: Path) -> Iterator[Path]:
    """An empty directory to write to, which takes the place of `path` when everything in it has reached the disk, and is gone where
    something fails before. Raises OSError with the path of what the disk does not take."""
    written = partial(path)
    shutil.rmtree(written, ignore_errors=True)
    try:
        with writing(path):
            written.mkdir(parents=True)
            yield written
            for file in written.rglob("*"):
                if file.is_file():
                    _to_disk(file)
            shutil.rmtree(path, ignore_errors=True)
            written.rename(path)
    finally:
        shutil.rmtree(written, ignore_errors=True)


def _to_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
