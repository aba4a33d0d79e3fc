"""Where things lie in a data set's folder, and packages that only some formats need."""

from __future__ import annotations

import os
from fnmatch import fnmatch, fnmatchcase
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

from vlmkit.data.reading.rows import Unusable
from vlmkit.data.sample import DataError
from vlmkit.preprocess.file_urls import local_path

LONGEST_PATH = 4096
"""Characters, as many as a file system takes."""


def files(folder: Path, *patterns: str | tuple[str, ...], but: str = "", way_out: str = "") -> list[Path]:
    """Files of the first pattern that any match, by name, without those that match `but`.

    A pattern is a path below the folder whose parts may hold *, or the name of a file as it is; a tuple of them is one. A
    link to nowhere is a file too, for its reader to miss: it stands for data that was there. Raises DataError where none
    matches any, and for a folder that may not be read, which would pass for an empty one.
    """
    spelled = [pattern if isinstance(pattern, tuple) else (str(pattern),) for pattern in patterns]
    for pattern in spelled:
        matching = {path for one in pattern for path in _matching(folder, one)}
        found = sorted(path for path in matching if _is_file(path) and not fnmatch(path.name, but))
        if found:
            return found
    there = sorted(path.name for path in _inside(folder))
    listed = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "")
    asked = " or ".join(one[:100] for pattern in spelled for one in pattern)
    raise DataError(f"{folder} has no {asked}; it holds {listed or 'nothing'}. {way_out}".strip())


def _matching(folder: Path, pattern: str) -> list[Path]:
    if os.path.lexists(folder / pattern):
        return [folder / pattern]
    found = [folder]
    for part in PurePath(pattern).parts:
        found = [path for place in found if os.path.isdir(place) for path in _inside(place) if fnmatchcase(path.name, part)]
    return found


def _inside(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder)]
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None


def _is_file(path: Path) -> bool:
    return os.path.isfile(path) or not os.path.exists(path)


def one_file(folder: Path, *patterns: str, but: str = "", way_out: str) -> Path:
    """The only file of the first pattern that any match. Raises DataError where there are several: two releases of one data
    set share images, so to read both would be to read some twice."""
    found = files(folder, *patterns, but=but, way_out=way_out)
    if len(found) > 1:
        raise DataError(f"{folder} has several annotation files: {', '.join(path.name for path in found[:10])}. {way_out}")
    return found[0]


def below(folder: Path, name: str) -> Path:
    """A file of a folder by its name, which may be spelled as a `file://` URL. Raises Unusable for one that no file system takes: to take
    it apart may need all memory."""
    if len(name) > LONGEST_PATH:
        raise Unusable("image is missing", f"its path has {len(name)} characters, a file system takes {LONGEST_PATH}")
    return folder / local_path(name)


def first_there(*places: Path) -> Path:
    """The first of these that exists; the first of all where none does, to be missed by that name."""
    return next((place for place in places if is_there(place)), places[0])


def is_there(place: Path) -> bool:
    """Never raises: Path.exists does for names that are too long."""
    return os.path.exists(place)


def need(module: str, what: str) -> Any:
    """A module of the extra `data`. Raises DataError saying how to install it."""
    try:
        return import_module(module)
    except ImportError:
        raise DataError(f"reading {what} needs {module.partition('.')[0]}: pip install 'vlmkit[data]'") from None
