"""JPEG 2000 (ISO 15444): the header of the code stream says what the decoder will make room for.

OpenJPEG keeps a 32-bit number a sample and a record of each tile, precinct and block, so that all are bounded. Data that ends early it
refuses.
"""

from __future__ import annotations

import functools
import math

from vlmkit.preprocess.encoded.surveys import Survey, number
from vlmkit.preprocess.encoded.whole import loaded, opened
from vlmkit.preprocess.image_errors import Flaw

_STREAM, _FILE = b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"
_COD, _COC, _SOT, _EOC = 0xFF52, 0xFF53, 0xFF90, 0xFFD9
_WEIGHT = 10.0
_MOST_CODED = 8 << 20
MAX_TILES = 4096
MAX_PARTS = 1 << 16
"""Of tiles, each with a header of its own."""
MAX_LAYERS = 100
MIN_PRECINCT = 6
"""Exponent of two of a precinct's sides: 64 samples."""


def accepts(data: bytes) -> bool:
    return data.startswith((_STREAM, _FILE))


def survey(data: bytes) -> Survey:
    start = _stream(data)
    right, bottom, left, top, wide, high, tile_left, tile_top = (number(data, start + 8 + 4 * place, 4) for place in range(8))
    if right <= left or bottom <= top or not wide or not high:
        raise Flaw("it states no pixels")
    tiles = math.ceil((right - tile_left) / wide) * math.ceil((bottom - tile_top) / high)
    if tiles > MAX_TILES:
        raise Flaw(f"it has {tiles} tiles, expected at most {MAX_TILES}")
    _check_parts(data, start)
    width, height = right - left, bottom - top
    return Survey(
        format="JPEG 2000",
        height=height,
        width=width,
        weight=_WEIGHT,
        header=functools.partial(opened, "JPEG2000", data),
        load=functools.partial(loaded, "JPEG2000", data, (width, height)),
        coded=len(data),
        most_coded=_MOST_CODED,
    )


def _stream(data: bytes) -> int:
    """Where the code stream begins: at once, or in a box."""
    at = 0
    while not data.startswith(_STREAM, at):
        length = number(data, at, 4)
        body = at + (16 if length == 1 else 8)
        length = number(data, at + 8, 8) if length == 1 else length
        if data[at + 4 : at + 8] == b"jp2c":
            at = body
            continue
        if length < 8:
            raise Flaw("it has no code stream")
        at += length
    return at


def _check_parts(data: bytes, at: int) -> None:
    """Walk the headers of the stream and of its parts. Raises Flaw where a part is missing or the records would not fit."""
    at, parts = at + 2, 0
    while True:
        marker = number(data, at, 2)
        if marker == _EOC:
            return
        length = number(data, at + 2, 2)
        _check_style(data, at, marker)
        if marker != _SOT:
            at += 2 + length
            continue
        parts += 1
        size = number(data, at + 6, 4)
        if parts > MAX_PARTS:
            raise Flaw(f"it has more than {MAX_PARTS} parts of tiles")
        end = at + size if size else len(data) - 2
        if 0 < size < 14 or end + 2 > len(data):
            raise Flaw(f"it ends at byte {len(data)}, in a part of {size} bytes")
        inner = at + 12
        while (marker := number(data, inner, 2)) != 0xFF93:
            _check_style(data, inner, marker)
            inner += 2 + number(data, inner + 2, 2)
            if inner >= end:
                raise Flaw("a part of it has no data")
        at = end


def _check_style(data: bytes, at: int, marker: int) -> None:
    if marker == _COD:
        layers, levels, chosen = number(data, at + 6, 2), number(data, at + 9, 1), number(data, at + 4, 1) & 1
        first = at + 14
    elif marker == _COC:
        layers, levels, chosen, first = 1, number(data, at + 6, 1), number(data, at + 5, 1) & 1, at + 11
    else:
        return
    if layers > MAX_LAYERS:
        raise Flaw(f"it has {layers} layers, expected at most {MAX_LAYERS}")
    exponents = [number(data, first + level, 1) for level in range(levels + 1)] if chosen and levels <= 32 else []
    if any(min(exponent & 15, exponent >> 4) < MIN_PRECINCT for exponent in exponents):
        raise Flaw(f"it has precincts of fewer than {2**MIN_PRECINCT} samples a side")
