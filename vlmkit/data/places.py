"""Where things lie in a data set's folder, and packages that only some formats need."""

from __future__ import annotations

import os
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

from vlmkit.data.sample import DataError


def files(folder: Path, *patterns: str, but: str = "", way_out: str = "") -> list[Path]:
    """Files of the first pattern (of Path.glob) that any match, by name, without those that match `but`.

    Raises DataError where none matches any.
    """
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if path.is_file() and not fnmatch(path.name, but))
        if found:
            return found
    there = sorted(path.name for path in folder.iterdir())
    listed = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "")
    raise DataError(f"{folder} has no {' or '.join(patterns)}; it holds {listed or 'nothing'}. {way_out}".strip())


def one_file(folder: Path, *patterns: str, but: str = "", way_out: str) -> Path:
    """The only file of the first pattern that any match. Raises DataError where there are several: two releases of one data
    set share images, so to read both would be to read some twice."""
    found = files(folder, *patterns, but=but, way_out=way_out)
    if len(found) > 1:
        raise DataError(f"{folder} has several annotation files: {', '.join(path.name for path in found[:10])}. {way_out}")
    return found[0]


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
