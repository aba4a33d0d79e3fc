"""How long the longest row of a column of lists is, from its repetition levels: 0 where a row begins, more where it goes on.

They are counted where a column has so many values, or so little in the file, that one row could take all memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from vlmkit.data.reading.parquet_pages import Column, Page
from vlmkit.data.reading.places import need

FEW = 1 << 16
"""Values of a page whose rows need no counting; whether one begins in it is enough."""
MAX_RUNS = 1 << 20
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}


def longest_row(stream: BinaryIO, column: Column, pages: Iterable[Page]) -> tuple[int, int]:
    """Values of the longest row and bytes of the pages in which a row lies, either at most. Raises ValueError."""
    most = most_bytes = values = size = runs = 0
    for page in pages:
        if page.is_dictionary:
            continue
        found = _rows(_levels(stream, column, page), column.repeated.bit_length(), page.values)
        runs += found.runs
        if runs > MAX_RUNS:
            raise ValueError(f"its lists begin and end more than {MAX_RUNS} times in a row group")
        size += page.size
        values += found.before
        most, most_bytes = max(most, values, found.longest), max(most_bytes, size)
        if found.begins:
            values, size = found.last, page.size
    return most, most_bytes


class _Rows(NamedTuple):
    """Numbers of values in a page: that belong to the row before, of the longest row that begins, of the last."""

    before: int
    longest: int
    last: int
    begins: bool
    runs: int


def _rows(levels: bytes, width: int, total: int) -> _Rows:
    import numpy as np

    place = longest = runs = 0
    first = last = -1
    for count, packed in _runs(levels, width):
        if place >= total or (first >= 0 and total <= FEW):
            break
        runs += 1
        count = min(count, total - place)
        if isinstance(packed, bytes):
            bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little").reshape(-1, width)
            starts = np.flatnonzero(bits[:count].sum(1) == 0) + place
        else:  # rows of one value each, or none
            starts = np.array([] if packed else sorted({place, place + count - 1}), np.int64)
        if len(starts):
            longest = max(longest, int(starts[0]) - last if first >= 0 else 0, 1 if not packed else int(np.diff(starts).max(initial=0)))
            first, last = first if first >= 0 else int(starts[0]), int(starts[-1])
        place += count
    if first < 0:
        if place < total:
            raise ValueError("the levels of a page end early")
        return _Rows(total, 0, 0, False, runs)
    if total <= FEW:  # what follows was not looked at
        return _Rows(first, total - first, total - first, True, runs)
    if place < total:
        raise ValueError("the levels of a page end early")
    return _Rows(first, max(longest, total - last), total - last, True, runs)


def _runs(data: bytes, width: int) -> Iterator[tuple[int, bytes | int]]:
    """(number of levels, the packed bits of as many or their one value): parquet's hybrid of run lengths and packed bits."""
    at = 0
    while at < len(data):
        head = shift = 0
        while True:
            if at >= len(data) or shift > 35:
                raise ValueError("the levels of a page end early")
            byte = data[at]
            head |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        length = (head >> 1) * width if head & 1 else (width + 7) // 8
        run = data[at : at + length]
        at += length
        if head & 1:
            whole = len(run) // width  # the last group may be cut short in the file
            yield whole * 8, run[: whole * width]
        else:
            yield head >> 1, int.from_bytes(run, "little")


def _levels(stream: BinaryIO, column: Column, page: Page) -> bytes:
    stream.seek(page.start)
    if page.levels is not None:
        return stream.read(min(page.levels, page.packed))
    data = unpacked(stream, column, page)
    return data[4 : 4 + int.from_bytes(data[:4], "little")]


def unpacked(stream: BinaryIO, column: Column, page: Page) -> bytes:
    """The bytes of a page of the first version. Raises ValueError."""
    stream.seek(page.start)
    data = stream.read(page.packed)
    if not column.codec:
        return data
    if column.codec not in _CODECS:
        raise ValueError(f"a page is packed in a way (number {column.codec}) that its rows cannot be counted in")
    found: bytes = need("pyarrow", "parquet files").decompress(data, page.size, _CODECS[column.codec], asbytes=True)
    return found
