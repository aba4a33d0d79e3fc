"""TGA (Truevision 1989): it has no sign at its beginning, so that only a header in which all agrees is taken for one."""

from __future__ import annotations

import functools

from vlmkit.preprocess.bounds import LAYERED, PLAIN
from vlmkit.preprocess.encoded.surveys import Survey, number
from vlmkit.preprocess.encoded.whole import loaded, opened
from vlmkit.preprocess.image_errors import Flaw

_DEPTHS = {1: (8,), 2: (16, 24, 32), 3: (1, 8, 16)}
"""Bits a pixel by kind: with a palette, in colour, grey. In run lengths each is 8 more."""


def accepts(data: bytes) -> bool:
    if len(data) < 18:
        return False
    palette, kind, depth, flags = data[1], data[2], data[16], data[17]
    sound = depth in _DEPTHS.get(kind & 7, ()) and kind in (1, 2, 3, 9, 10, 11) and not flags & 0xC0
    # Without a palette all five bytes about it are zero.
    return sound and (palette == 1 or (palette == 0 and kind & 7 != 1 and data[3:8] == bytes(5))) and data[12:14] != b"\0\0"


def survey(data: bytes) -> Survey:
    width, height, depth = number(data, 12, 2, "little"), number(data, 14, 2, "little"), data[16]
    start = 18 + data[0] + (number(data, 5, 2, "little") * ((data[7] + 7) // 8) if data[1] else 0)
    needed = height * ((width * depth + 7) // 8)
    if start > len(data) or (data[2] < 8 and start + needed > len(data)):
        raise Flaw(f"it has {len(data)} bytes of {start + needed}")
    return Survey(
        format="TGA",
        height=height,
        width=width,
        weight=PLAIN if depth in (1, 8, 24) and not data[1] else LAYERED,
        header=functools.partial(opened, "TGA", data),
        load=functools.partial(loaded, "TGA", data, (width, height)),
    )
