"""The index of shards: where each sample stands and how large its parts are, in two tables that are mapped, not read.

    index.json      what there is, in words: shards, sources, counts. Written last: where it is, all of it is there.
    rows.npy        one row a sample, see ROW
    sizes.npy       height and width of every image, in the order of the rows

Opening costs the same whatever the number of rows, and memory holds only the pages that were looked at.
"""

from __future__ import annotations

import functools
import json
import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from vlmkit.data.sample import DataError
from vlmkit.data.shards.places import Address, Place
from vlmkit.data.shards.stores import local_copy
from vlmkit.files import commit, partial, write_whole

VERSION = 1
INDEX, ROWS, SIZES = "index.json", "rows.npy", "sizes.npy"
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
    summary: Summary
    rows: Table
    sizes: Table

    def row(self, number: int) -> IndexRow:
        """A row in Python's numbers, several times as fast as numpy's."""
        return IndexRow._make(_ROW.unpack_from(self._bytes, number * _ROW.size))

    @functools.cached_property
    def _bytes(self) -> memoryview:
        return self.rows.view(np.uint8).data


def open_index(directory: Place) -> Index:
    """Tables that lie elsewhere are copied to this host and mapped likewise. Raises DataError where there is no whole index."""
    summary = read_summary(directory)
    rows = _mapped(directory / ROWS, ROW, (summary.samples,), summary)
    return Index(summary, rows, _mapped(directory / SIZES, SIDE, (summary.images, 2), summary))


def has_index(directory: Place) -> bool:
    """Whether shards are there. Raises DataError for an address that nothing reads."""
    return (directory / INDEX).is_file()


def read_summary(directory: Place) -> Summary:
    """Raises DataError."""
    file = directory / INDEX
    if not file.is_file():
        if (directory / PACKING).is_dir():
            raise DataError(f"{str(directory)!r} was not packed to its end: the same 'vlmkit data pack' again goes on with it")
        raise DataError(f"{str(directory)!r} is no directory that 'vlmkit data pack' wrote: {INDEX} is not there")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["version"] != VERSION:
            raise DataError(f"{file} is of version {found['version']!r}, expected {VERSION}; pack the data again")
        given = {field.name: found[field.name] for field in fields(Summary)}
        shards = tuple(Shard(**shard) for shard in given["shards"])
        return Summary(**given | {"shards": shards, "sources": tuple(given["sources"])})
    except DataError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read ({type(error).__name__}: {error}); pack the data again") from None


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
    text = json.dumps({"version": VERSION} | asdict(summary), indent=1, ensure_ascii=False)
    write_whole(directory / INDEX, text.encode("utf-8", "backslashreplace"))


def _mapped(file: Place, dtype: np.dtype[Any], shape: tuple[int, ...], summary: Summary) -> Table:
    here = local_copy(str(file), repr(summary)) if isinstance(file, Address) else file
    try:
        table = np.load(here, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} cannot be read ({type(error).__name__}: {error}); pack the data again") from None
    if table.dtype != dtype or table.shape != shape:
        raise DataError(f"{file} holds {table.shape} of {table.dtype}, {INDEX} says {shape} of {dtype}; pack the data again")
    # A plain array over the same pages: numpy's memmap costs several microseconds an access.
    return np.asarray(table)
