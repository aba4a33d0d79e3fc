"""What a writer keeps beside its shards until the index is written: which job it is, and all that is needed to go on behind each
shard that counts.

    .packing/job.json              what is written; a directory that was begun with another job is left alone
    .packing/lock                  held by the process that writes
    .packing/000000.rows.npy       the tables of a shard, see index.py
    .packing/000000.sizes.npy
    .packing/000000.json           written last: where it is, the shard counts
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vlmkit.data.rejections import Rejections
from vlmkit.data.sample import DataError
from vlmkit.data.shards.index import INDEX, PACKING, ROWS, SIZES, Shard, Table, check_of
from vlmkit.files import write_whole
from vlmkit.foreign import words_of

_JOB, _LOCK = "job.json", "lock"


@dataclass(frozen=True)
class Noted:
    """A shard that counts, and where its writer stood behind it."""

    shard: Shard
    bookmark: Any
    rejections: Rejections
    sources: dict[str, int]
    """Their names, and the number that the rows give for each."""
    images: int
    bytes: int
    """Of its samples, without the end of the tar."""
    rows: Path
    """Their table."""


class Notes:
    """The notes of one directory, which is this process's own until they are closed."""

    def __init__(self, directory: Path, job: Mapping[str, Any]) -> None:
        """Raises DataError where the directory holds anything else, is finished, or is being written by another process."""
        self.directory = directory
        self._made = [path for path in (directory / PACKING, directory) if not path.exists()]
        """Taken away again where nothing is written."""
        self._lock = _claim(directory, job)

    @property
    def closed(self) -> bool:
        return self._lock.closed

    def close(self) -> None:
        """Let others write to the directory."""
        self._lock.close()

    def add(self, number: int, rows: Table, sizes: Table, record: Mapping[str, Any]) -> None:
        """A shard counts from now on."""
        checks = {name: check_of(table) for name, table in ((ROWS, rows), (SIZES, sizes))}
        for name, table in ((ROWS, rows), (SIZES, sizes)):
            with open(self._file(number, name), "wb") as file:
                np.save(file, table)
                file.flush()
                os.fsync(file.fileno())
        write_whole(self._file(number, "json"), json.dumps(dict(record) | {"checks": checks}, indent=1).encode())

    def of_shards(self) -> Iterator[Noted]:
        """What was noted of each shard that an earlier writer finished. Raises DataError for a note or shard that was changed."""
        number = 0
        while (file := self._file(number, "json")).is_file():
            rows_file, sizes_file = (self._file(number, name) for name in (ROWS, SIZES))
            with _reading(file):
                record = json.loads(file.read_text(encoding="utf-8"))
                shard = Shard(**record["shard"])
                bookmark = record["bookmark"]
                sources = {name: place for place, name in enumerate(record["sources"])}
                rejections = Rejections.from_json(json.dumps(record["rejections"]))
            path = self.directory / shard.name
            if not path.is_file() or path.stat().st_size != shard.bytes:
                raise DataError(f"{path} is not as it was written ({shard.bytes} bytes); remove {str(self.directory)!r} and pack again")
            rows = self._table(rows_file, ROWS, record)
            with _reading(rows_file):
                size = int(rows["text"].sum() + rows["pictures"].sum())
            images = len(self._table(sizes_file, SIZES, record))
            yield Noted(shard, bookmark, rejections, sources, images, size, rows_file)
            number += 1

    def _table(self, file: Path, name: str, record: Mapping[str, Any]) -> Table:
        with _reading(file):
            if not file.is_file():
                raise OSError("no file")
            table: Table = np.load(file, mmap_mode="r")
            # Notes of before they were kept have none.
            if record.get("checks", {}).get(name, found := check_of(table)) != found:
                raise ValueError("not what was written")
            return table

    def tables(self, shards: int) -> Iterator[tuple[Table, Table]]:
        """Rows and sizes of each of so many shards."""
        for number in range(shards):
            yield np.load(self._file(number, ROWS)), np.load(self._file(number, SIZES))

    def remove(self) -> None:
        """In one stroke: half of the notes would look like a packing that has hardly begun."""
        over = _over(self.directory)
        shutil.rmtree(over, ignore_errors=True)
        os.replace(self.directory / PACKING, over)
        shutil.rmtree(over, ignore_errors=True)  # what is left the next writer takes away

    def take_back(self) -> None:
        """Leave the directory as it was found, where these notes are all that was written to it."""
        if self.closed or self.directory / PACKING not in self._made:
            return
        self.remove()
        if self.directory in self._made:
            with contextlib.suppress(OSError):  # somebody else has put something there
                self.directory.rmdir()

    def _file(self, number: int, what: str) -> Path:
        return self.directory / PACKING / f"{number:06d}.{what}"


def _claim(directory: Path, job: Mapping[str, Any]) -> BinaryIO:
    """The lock of a directory that is ours to write to. Raises DataError."""
    packing = directory / PACKING
    # Of a writer that was killed in its last moment.
    shutil.rmtree(_over(directory), ignore_errors=True)
    if (directory / INDEX).is_file() and not packing.exists():
        raise DataError(f"{str(directory)!r} holds packed samples already; name another directory, or remove it")
    if directory.exists() and not packing.is_dir() and any(directory.iterdir()):
        raise DataError(f"{str(directory)!r} holds something else; name a directory that is empty or not there")
    packing.mkdir(parents=True, exist_ok=True)
    try:
        # Without waiting, should it be a pipe.
        lock = os.fdopen(os.open(packing / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666), "wb")
    except OSError as error:
        raise DataError(f"{packing / _LOCK} cannot be opened ({error.strerror}); remove {str(directory)!r} and pack again") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise DataError(f"{str(directory)!r} is being written by another process") from None
    file = packing / _JOB
    wanted = json.loads(json.dumps(job))
    try:
        with _reading(file):
            begun = dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else wanted
    except DataError:
        lock.close()
        raise
    if begun != wanted and any(packing.glob("[0-9]*.json")):
        lock.close()
        differing = [name for name in {**begun, **wanted} if begun.get(name) != wanted.get(name)]
        told = ", ".join(f"{name} was {begun.get(name)!r}, is {wanted.get(name)!r}" for name in differing)
        raise DataError(f"{str(directory)!r} was begun otherwise: {told}. Go on with the same, name another directory, or remove it")
    write_whole(file, json.dumps(wanted, indent=1).encode())
    return lock


def _over(directory: Path) -> Path:
    """Notes that are no longer needed, on their way out."""
    return directory / f"{PACKING}.over"


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Reading what an earlier writer left in .packing. Raises DataError where something else has been at it."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # numpy's header is read as a program text
        directory = file.parent.parent
        raise DataError(f"{file} cannot be read ({words_of(error)}); remove {str(directory)!r} and pack again") from None
