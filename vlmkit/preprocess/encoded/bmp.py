"""BMP: a header of known length, then pixels as they are or in run lengths.

Run lengths are walked first: lines that end early and jumps leave pixels out. Pillow reads them a run at a time in Python, so such
pictures are bounded more closely; they were made for icons.
"""

from __future__ import annotations

import functools

from PIL import Image

from vlmkit.preprocess.bounds import PLAIN
from vlmkit.preprocess.encoded.surveys import Survey, number
from vlmkit.preprocess.encoded.whole import loaded, opened
from vlmkit.preprocess.image_errors import Flaw

_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_RUNS8, _RUNS4 = 1, 2
_OF_RUNS = 40.0
_MOST_RUNS = 1 << 21


def accepts(data: bytes) -> bool:
    return data.startswith(b"BM")


def survey(data: bytes) -> Survey:
    width, height, compression = measures(data, 14)
    runs = compression in (_RUNS8, _RUNS4)
    start = number(data, 10, 4, "little")
    return Survey(
        format="BMP",
        height=height,
        width=width,
        weight=_OF_RUNS if runs else PLAIN,
        header=functools.partial(opened, "BMP", data),
        load=functools.partial(_loaded, data, (width, height), start if runs else None, compression == _RUNS4),
        coded=len(data) if runs else 0,
        most_coded=_MOST_RUNS,
    )


def measures(data: bytes, at: int) -> tuple[int, int, int]:
    """Width, height and the kind of compression that a header says."""
    length = number(data, at, 4, "little")
    if length not in _HEADERS:
        raise Flaw(f"its header says that it has {length} bytes, expected one of {', '.join(map(str, _HEADERS))}")
    if length == 12:
        return number(data, at + 4, 2, "little"), number(data, at + 6, 2, "little"), 0
    width, height = number(data, at + 4, 4, "little"), number(data, at + 8, 4, "little")
    # From the top where it is negative.
    return width, min(height, 2**32 - height), number(data, at + 16, 4, "little")


def _loaded(data: bytes, size: tuple[int, int], runs_at: int | None, fours: bool) -> Image.Image:
    if runs_at is not None:
        _check_runs(data, runs_at, *size, fours)
    return loaded("BMP", data, size)


def _check_runs(data: bytes, at: int, width: int, height: int, fours: bool) -> None:
    """Raises Flaw where a pixel has no value."""
    x = y = 0
    while y < height and not (y == height - 1 and x == width):
        if at + 1 >= len(data):
            raise Flaw("its data ends before its last pixel")
        count, value, at = data[at], data[at + 1], at + 2
        if count:
            x = min(width, x + count)
        elif value == 0 and x == width:
            x, y = 0, y + 1
        elif value > 2:
            length = (value + 1) // 2 if fours else value
            at += length + length % 2
            if at - length % 2 > len(data) or x + value > width:
                raise Flaw("its data ends before its last pixel")
            x += value
        else:
            raise Flaw(f"its line {y} ends before its last pixel")
