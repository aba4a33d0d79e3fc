"""How many rows of a row group may be decoded at once, and whether any: from what its pages say, before pyarrow makes room for them."""

from __future__ import annotations

from collections.abc import Collection
from typing import BinaryIO

from vlmkit.data.reading.parquet_levels import FEW, longest_row, unpacked
from vlmkit.data.reading.parquet_pages import BYTES, DELTA_BYTES, DICTIONARY, Column, Page, RowGroup, pages

BATCH = 16
"""Rows decoded at once; a row may hold several images."""
MAX_DICTIONARY = 1 << 25
"""Bytes of values that rows share, of one column and row group: each row that is decoded has a copy of its own."""
MAX_PAGE = 1 << 25
"""Bytes of a page when it is unpacked, where that is more than PACKED times what it has in the file: pictures hardly shrink."""
PACKED = 4
MAX_ROW = 1 << 27
"""Bytes of a row."""
MAX_GROWN = 1 << 26
"""Bytes of a row that has less than a quarter of it in the file, or several times the same."""
MAX_VALUES = 1 << 20
"""Values of a row with the lists and objects around them: each is an object of Python's."""
_TOGETHER = 1 << 25
"""Bytes of rows that are decoded at once."""


def batch_size(stream: BinaryIO, group: RowGroup, columns: Collection[str] | None) -> int:
    """BATCH, or 1 where rows are large. Raises ValueError for a row group of which a row may be over the bounds."""
    objects = together = 0
    for column in group.columns:
        if columns is None or column.name in columns:
            found = list(pages(stream, column))
            values, row, whole = _row(stream, column, found)
            objects += values * max(column.depth, 1)
            together += min(whole, BATCH * row)
    if objects > MAX_VALUES:
        raise ValueError(f"a row may have {objects} values, expected at most {MAX_VALUES}")
    return BATCH if together <= _TOGETHER else 1


def _row(stream: BinaryIO, column: Column, found: list[Page]) -> tuple[int, int, int]:
    """At most: values of a row, its bytes, and those of all rows."""
    for page in found:
        _check(column, page)
    data = [page for page in found if not page.is_dictionary]
    values, size = sum(page.values for page in data), sum(page.size for page in data)
    is_packed = size > max(MAX_PAGE, PACKED * sum(page.packed for page in data))
    if not column.repeated:
        row_values, row = 1, max((page.size for page in data), default=0)
    elif values > FEW or is_packed:
        row_values, row = longest_row(stream, column, data)
    else:
        row_values, row = values, size
    if column.kind not in BYTES:
        return row_values, 8 * row_values, 8 * values
    if is_packed and row > MAX_GROWN:
        raise ValueError(f"a row may have {row} bytes, expected at most {MAX_GROWN}")
    shared = _longest_shared(stream, column, found, row_values)
    if row_values * shared > MAX_GROWN:
        raise ValueError(f"a row may have {row_values} copies of {shared} bytes, expected at most {MAX_GROWN} bytes")
    return row_values, row + row_values * shared, size + values * shared


def _check(column: Column, page: Page) -> None:
    if page.is_dictionary and page.size > MAX_DICTIONARY:
        raise ValueError(f"its rows share values of {page.size} bytes, expected at most {MAX_DICTIONARY}")
    if page.size > max(MAX_PAGE, PACKED * page.packed):
        raise ValueError(f"a page of {page.packed} bytes unpacks to {page.size}, expected at most {MAX_PAGE}")
    if page.size > MAX_ROW * max(page.values, 1):
        raise ValueError(f"a row has more than {MAX_ROW} bytes")
    if page.values > column.values and not page.is_dictionary:
        raise ValueError("a page has more values than its column")


def _longest_shared(stream: BinaryIO, column: Column, found: list[Page], copies: int) -> int:
    """Bytes, at most, of a value that stands in the file once and in several places of the column."""
    # Of values that begin like the one before, pyarrow holds three beside what it gives.
    longest = max((3 * page.size for page in found if page.encoding == DELTA_BYTES and not page.is_dictionary), default=0)
    if any(page.encoding in DICTIONARY for page in found if not page.is_dictionary):
        for page in found:
            if page.is_dictionary:
                large = copies * page.size > MAX_GROWN or BATCH * copies * page.size > _TOGETHER
                longest = max(longest, _longest(unpacked(stream, column, page)) if large and column.kind == BYTES[0] else page.size)
    return longest


def _longest(values: bytes) -> int:
    """Bytes of the longest of values that stand behind their lengths."""
    at = longest = 0
    while at + 4 <= len(values):
        length = int.from_bytes(values[at : at + 4], "little")
        longest = max(longest, length)
        at += 4 + length
    return longest
