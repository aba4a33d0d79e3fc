"""What a parquet file says of its columns and pages, read without pyarrow: that trusts what it says with memory, and with the process.

A damaged footer makes pyarrow's own access to it abort; a page of a kilobyte may unpack to gigabytes, before anybody could ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from vlmkit.data.reading.thrift import KEEP, CutShort, fields

MAX_FOOTER = 1 << 26
MAX_COLUMNS = 10_000
MAX_DEPTH = 64
MAX_PAGES = 100_000
"""Of a column in a row group."""
PLAIN, DELTA_LENGTHS, DELTA_BYTES = 0, 6, 7
DICTIONARY = (2, 8)
"""Encodings in which a page holds numbers of values."""
BYTES = (6, 7)
"""Types whose values have any length."""
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3
_MAX_HEADER = 1 << 20
_MAGIC = b"PAR1"

_COLUMN = {4: KEEP, 5: KEEP, 7: KEEP, 9: KEEP, 11: KEEP}
_FOOTER = {2: [{1: KEEP, 3: KEEP, 4: KEEP, 5: KEEP}], 3: KEEP, 4: [{1: [{3: _COLUMN}], 3: KEEP}]}
_PAGE = {1: KEEP, 2: KEEP, 3: KEEP, 5: {1: KEEP, 2: KEEP, 4: KEEP}, 7: {1: KEEP}, 8: {1: KEEP, 4: KEEP, 5: KEEP, 6: KEEP, 7: KEEP}}


@dataclass(frozen=True, slots=True)
class Page:
    is_dictionary: bool
    start: int
    """Of its bytes, behind the header."""
    packed: int
    size: int
    """Bytes in the file, and unpacked."""
    values: int
    encoding: int
    levels: int | None
    """Bytes of repetition levels before all else and never packed, in a page of the second version."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that holds values, in one row group."""

    name: str
    """Of the column at the top that it belongs to."""
    kind: int
    repeated: int
    """How many lists a value lies in."""
    depth: int
    """Highest definition level: lists and optional fields that it lies in."""
    codec: int
    values: int
    start: int
    end: int


@dataclass(slots=True)
class RowGroup:
    rows: int
    columns: list[Column] = field(default_factory=list)


def row_groups(stream: BinaryIO) -> list[RowGroup]:
    """Raises ValueError for what is no footer, or one without measure."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 8))
    tail = stream.read(8)
    if size < 12 or tail[4:] != _MAGIC:
        raise ValueError("it does not end as parquet files do")
    length = int.from_bytes(tail[:4], "little")
    if length > size - 12:
        raise ValueError("its footer is cut short")
    if length > MAX_FOOTER:
        raise ValueError(f"its footer has {length} bytes, expected at most {MAX_FOOTER}")
    stream.seek(size - 8 - length)
    footer, _ = fields(stream.read(length), 0, _FOOTER)
    leaves = _leaves(footer.get(2, []))
    groups = []
    for group in footer.get(4, []):
        chunks = group.get(1, [])
        if len(chunks) != len(leaves):
            raise ValueError(f"a row group has {len(chunks)} columns, the file {len(leaves)}")
        columns = [_column(leaf, chunk.get(3, {}), size) for leaf, chunk in zip(leaves, chunks, strict=True)]
        groups.append(RowGroup(_natural(group.get(3)), columns))
    return groups


def _column(leaf: tuple[str, int, int, int], found: dict[int, Any], size: int) -> Column:
    name, kind, repeated, depth = leaf
    data, packed, dictionary = _natural(found.get(9)), _natural(found.get(7)), found.get(11)
    start = dictionary if isinstance(dictionary, int) and 0 < dictionary < data else data
    if start + packed > size:
        raise ValueError("a column reaches beyond the file")
    return Column(name, kind, repeated, depth, _natural(found.get(4)), _natural(found.get(5)), start, start + packed)


def _leaves(elements: list[dict[int, Any]]) -> list[tuple[str, int, int, int]]:
    """(column at the top, type, repeated, depth) of each column that holds values, from the tree's nodes in their order."""
    if not 1 <= len(elements) <= MAX_COLUMNS:
        raise ValueError(f"its schema has {len(elements)} elements, expected 1 to {MAX_COLUMNS}")
    found = []
    open_nodes = [[_natural(elements[0].get(5)), 0, 0]]
    name = ""
    for element in elements[1:]:
        while open_nodes and not open_nodes[-1][0]:
            open_nodes.pop()
        if not open_nodes:
            raise ValueError("its schema is no tree")
        if len(open_nodes) > MAX_DEPTH:
            raise ValueError(f"its columns nest deeper than {MAX_DEPTH}")
        open_nodes[-1][0] -= 1
        if len(open_nodes) == 1:
            name = _text(element.get(4))
        repetition = element.get(3, 0)
        repeated, depth = open_nodes[-1][1] + (repetition == 2), open_nodes[-1][2] + (repetition in (1, 2))
        if element.get(5):
            open_nodes.append([_natural(element[5]), repeated, depth])
        else:
            found.append((name, _natural(element.get(1)), repeated, depth))
    if any(node[0] for node in open_nodes):
        raise ValueError("its schema is cut short")
    return found


def pages(stream: BinaryIO, column: Column) -> Iterator[Page]:
    """The pages that pyarrow would read, in their order. Raises ValueError."""
    at, values = column.start, 0
    for _ in range(MAX_PAGES):
        if at >= column.end or values >= column.values:
            return
        found, length = _header(stream, at, column.end)
        page = found.get(5) or found.get(8) or found.get(7) or {}
        kind, size, packed = found.get(1), _natural(found.get(2)), _natural(found.get(3))
        start = at + length
        at = start + packed
        if at > column.end:
            raise ValueError("a page reaches beyond its column")
        count = _natural(page.get(1, 0))
        if kind == _DICTIONARY:
            yield Page(True, start, packed, size, count, PLAIN, None)
        elif kind in (_DATA, _DATA_2):
            values += count
            encoding = page.get(2 if kind == _DATA else 4, PLAIN)
            yield Page(False, start, packed, size, count, encoding, _natural(page.get(6)) if kind == _DATA_2 else None)
    raise ValueError(f"a column has more than {MAX_PAGES} pages")


def _header(stream: BinaryIO, at: int, end: int) -> tuple[dict[int, Any], int]:
    held = 256
    while True:
        stream.seek(at)
        data = stream.read(min(held, end - at))
        try:
            return fields(data, 0, _PAGE)
        except CutShort:
            if held > min(_MAX_HEADER, end - at):
                raise
            held *= 16


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("a number is missing, or below 0")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, bytes):
        raise ValueError("a column has no name")
    return value.decode("utf-8", "replace")
