"""The index of shards: where each sample stands and how large its parts are, in two tables that are mapped, not read.

    index.json      what there is, in words: shards, sources, counts. Written last: where it is, all of it is there.
    rows.npy        one row a sample, see ROW
    sizes.npy       height and width of every image, in the order of the rows

Opening costs the same whatever the number of rows, and memory holds only the pages that were looked at.

index.json holds its own checksum and those of the tables, of so many rows each (`CHECKED`), which are compared when the first of them is
read. Indexes of version 1 have none and are read as they are.
"""

from __future__ import annotations

import functools
import json
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from vlmkit.data.sample import DataError
from vlmkit.data.shards.places import Address, Place
from vlmkit.data.shards.stores import local_copy
from vlmkit.files import commit, partial, write_whole
from vlmkit.foreign import words_of

VERSION, UNCHECKED = 2, 1
CHECKED = 1 << 14
"""Rows of a table that share a checksum: 850 kB of rows.npy."""
INDEX, ROWS, SIZES = "index.json", "rows.npy", "sizes.npy"
_NAME = re.compile(r"(?!\.+$)[\w.+=@ -]{1,200}")
PACKING = ".packing"
"""Beside them as long as they are being made."""


class IndexRow(NamedTuple):
    """What the table says of a sample."""

    offset: int
    """Of its first byte in the shard."""
    first_image: int
    """Row of sizes.npy."""
    shard: int
    source: int
    text: int
    """Bytes of the .json member, with its header and padding."""
    pictures: int
    """Bytes of the images likewise, which follow at once."""
    text_check: int
    """CRC-32 of these bytes."""
    pictures_check: int
    images: int
    conversations: int
    text_bytes: int
    """Of what is said in all conversations, UTF-8."""


_FORMATS = {name: "Q" if name in ("offset", "first_image") else "I" for name in IndexRow._fields}
ROW = np.dtype([(name, f"<{format}") for name, format in _FORMATS.items()])
"""52 bytes a sample."""
_ROW = struct.Struct("<" + "".join(_FORMATS.values()))
SIDE = np.dtype("<u4")
_AGAIN = "copy it again from where it is sound, or remove the folder and pack the data again"
Table = NDArray[Any]


@dataclass(frozen=True)
class Shard:
    """A tar beside the index."""

    name: str
    samples: int
    bytes: int


@dataclass(frozen=True)
class Summary:
    """What index.json says."""

    samples: int
    images: int
    sources: tuple[str, ...]
    shards: tuple[Shard, ...]
    job: dict[str, Any]
    """What was asked for when the shards were written."""
    rejections: dict[str, Any]
    """What was left out, as `Rejections` writes it."""


@dataclass(frozen=True)
class Index:
    directory: Place
    summary: Summary
    rows: Table
    sizes: Table
    checks: dict[str, list[int]]
    """Of each table, by block; none of an index of version 1."""
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def row(self, number: int) -> IndexRow:
        """A row in Python's numbers, several times as fast as numpy's. Raises DataError where it is not what was written."""
        if (ROWS, number // CHECKED) not in self._seen:
            self._check(ROWS, self.rows, number // CHECKED)
        row = IndexRow._make(_ROW.unpack_from(self._bytes, number * _ROW.size))
        shards = self.summary.shards
        if (
            row.shard >= len(shards)
            or row.source >= len(self.summary.sources)
            or row.offset + row.text + row.pictures > shards[row.shard].bytes
            or row.first_image + row.images > self.summary.images
        ):
            raise DataError(f"{self.directory / ROWS}, row {number} points to what is not there; {_AGAIN}")
        return row

    def sizes_of(self, row: IndexRow) -> list[list[int]]:
        """Height and width of each of its images. Raises DataError where they are not what was written."""
        if row.images:
            for block in range(row.first_image // CHECKED, (row.first_image + row.images - 1) // CHECKED + 1):
                if (SIZES, block) not in self._seen:
                    self._check(SIZES, self.sizes, block)
        found: list[list[int]] = self.sizes[row.first_image : row.first_image + row.images].tolist()
        return found

    def check(self) -> None:
        """Compare all checksums that were not. Raises DataError."""
        for name, table in ((ROWS, self.rows), (SIZES, self.sizes)):
            for block in range(-(-len(table) // CHECKED)):
                if (name, block) not in self._seen:
                    self._check(name, table, block)

    def _check(self, name: str, table: Table, block: int) -> None:
        first = block * CHECKED
        if name in self.checks and self.checks[name][block] != check_of(table[first : first + CHECKED]):
            last = min(first + CHECKED, len(table)) - 1
            raise DataError(f"{self.directory / name}, rows {first} to {last}: the bytes are not those that were written; {_AGAIN}")
        self._seen.add((name, block))

    @functools.cached_property
    def _bytes(self) -> memoryview:
        return self.rows.view(np.uint8).data


def open_index(directory: Place) -> Index:
    """Tables that lie elsewhere are copied to this host and mapped likewise. Raises DataError where there is no whole index."""
    summary, checks = _read(directory)
    rows = _mapped(directory / ROWS, ROW, (summary.samples,), summary)
    return Index(directory, summary, rows, _mapped(directory / SIZES, SIDE, (summary.images, 2), summary), checks)


def has_index(directory: Place) -> bool:
    """Whether shards are there. Raises DataError for an address that nothing reads."""
    return (directory / INDEX).is_file()


def read_summary(directory: Place) -> Summary:
    """Raises DataError."""
    return _read(directory)[0]


def _read(directory: Place) -> tuple[Summary, dict[str, list[int]]]:
    file = directory / INDEX
    if not file.is_file():
        if (directory / PACKING).is_dir():
            raise DataError(f"{str(directory)!r} was not packed to its end: the same 'vlmkit data pack' again goes on with it")
        raise DataError(f"{str(directory)!r} is no directory that 'vlmkit data pack' wrote: {INDEX} is not there")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        version = found["version"]
        if version not in (VERSION, UNCHECKED) or (version == UNCHECKED and "check" in found):
            raise DataError(f"{file} is of version {version!r:.80}, expected {VERSION}; pack the data again")
        if version == VERSION and found.pop("check") != _check_of(found):
            raise DataError(f"{file} is not what was written; {_AGAIN}")
        given = {field.name: found[field.name] for field in fields(Summary)}
        summary = Summary(**given | {"shards": tuple(Shard(**shard) for shard in given["shards"]), "sources": tuple(given["sources"])})
        checks = dict(found["checks"]) if version == VERSION else {}
        _check_summary(file, summary, checks)
        return summary, checks
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file} cannot be read ({words_of(error)}); pack the data again") from None


def _check_summary(file: Place, summary: Summary, checks: dict[str, list[int]]) -> None:
    """Raises DataError where counts are none, or a shard is called so that it would lie elsewhere."""
    counts = [summary.samples, summary.images, *(number for shard in summary.shards for number in (shard.samples, shard.bytes))]
    if not all(type(count) is int and 0 <= count < 1 << 62 for count in counts) or summary.samples != sum(
        shard.samples for shard in summary.shards
    ):
        raise DataError(f"{file} does not count its samples, images and bytes; {_AGAIN}")
    bad = [shard.name for shard in summary.shards if not (isinstance(shard.name, str) and _NAME.fullmatch(shard.name))]
    if bad:
        raise DataError(f"{file} names a shard {bad[0]!r:.80}, expected a file beside it; {_AGAIN}")
    if not all(isinstance(source, str) for source in summary.sources) or not isinstance(summary.job, dict):
        raise DataError(f"{file} does not name its sources; {_AGAIN}")
    for name, rows in ((ROWS, summary.samples), (SIZES, summary.images)):
        if checks and len(checks[name]) != -(-rows // CHECKED):
            raise DataError(f"{file} has {len(checks[name])} checksums of {name}, expected {-(-rows // CHECKED)}; {_AGAIN}")


def _check_of(content: dict[str, Any]) -> int:
    """The checksum of what index.json says, however it is spelled."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def check_of(table: Table) -> int:
    """CRC-32 of the bytes of some rows."""
    return zlib.crc32(np.ascontiguousarray(table).view(np.uint8).data)


def written_index(summary: Summary, tables: Mapping[str, Table]) -> bytes:
    """The text of index.json."""
    checks = {name: [check_of(table[at : at + CHECKED]) for at in range(0, len(table), CHECKED)] for name, table in tables.items()}
    content = json.loads(json.dumps({"version": VERSION} | asdict(summary) | {"checks": checks}))
    content["check"] = _check_of(content)
    return json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")


def write_index(directory: Path, parts: Iterable[tuple[Table, Table]], summary: Summary) -> None:
    """Tables of shards, one after the other, as one; a part's `first_image` counts from its own first."""
    row, image = 0, 0
    rows = open_memmap(partial(directory / ROWS), mode="w+", dtype=ROW, shape=(summary.samples,))
    sizes = open_memmap(partial(directory / SIZES), mode="w+", dtype=SIDE, shape=(summary.images, 2))
    for part_rows, part_sizes in parts:
        here = slice(row, row + len(part_rows))
        rows[here] = part_rows
        rows["first_image"][here] += np.uint64(image)
        sizes[image : image + len(part_sizes)] = part_sizes
        row, image = here.stop, image + len(part_sizes)
    assert (row, image) == (summary.samples, summary.images)
    for table, name in ((rows, ROWS), (sizes, SIZES)):
        table.flush()
        commit(partial(directory / name), directory / name)
    write_whole(directory / INDEX, written_index(summary, {ROWS: rows, SIZES: sizes}))


def _mapped(file: Place, dtype: np.dtype[Any], shape: tuple[int, ...], summary: Summary) -> Table:
    here = local_copy(str(file), repr(summary)) if isinstance(file, Address) else file
    if not here.is_file():  # opening a pipe would wait for whoever writes to it
        raise DataError(f"{file} is not there, or is no file; {_AGAIN}")
    try:
        table = np.load(here, mmap_mode="r", allow_pickle=False)
    except Exception:  # numpy reads its header as a program text, and fails in all ways that those have; its words ask for pickles
        raise DataError(f"{file} cannot be read (it is no table as vlmkit writes it, or is cut); pack the data again") from None
    if table.dtype != dtype or table.shape != shape:
        raise DataError(f"{file} holds {table.shape} of {table.dtype}, {INDEX} says {shape} of {dtype}; pack the data again")
    # A plain array over the same pages: numpy's memmap costs several microseconds an access.
    return np.asarray(table)
