"""Strips and tiles of a TIFF: as many as its picture needs, each listed and in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlmkit.preprocess.encoded.tiff_directory import (
    COMPRESSION,
    MAX_PIECES,
    PHOTOMETRIC,
    PLANAR,
    RAW,
    STRIP_BYTES,
    STRIP_ROWS,
    STRIPS,
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    TILES,
    Directory,
)
from vlmkit.preprocess.image_errors import Flaw

_YCBCR, _SEPARATE = 6, 2


@dataclass(frozen=True)
class Pieces:
    """The strips or tiles of a picture."""

    width: int
    height: int
    tiled: bool
    down: int
    planes: int
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]


def pieces_of(directory: Directory, width: int, height: int, samples: int, bits: int) -> Pieces:
    """Raises Flaw where one of them is not listed or does not lie in the file."""
    tiled = TILES in directory.entries or TILE_WIDTH in directory.entries
    if tiled:
        wide, high = directory.one(TILE_WIDTH, 0), directory.one(TILE_HEIGHT, 0)
        if not 0 < wide * high <= 4 * max(width, 256) * max(height, 256):
            raise Flaw(f"its tiles are {high}x{wide}, its picture {height}x{width}")
        across, down, name = math.ceil(width / wide), math.ceil(height / high), "tiles"
    else:
        rows = min(directory.one(STRIP_ROWS, height), height)
        if rows < 1:
            raise Flaw("its strips have no rows")
        wide, high, across, down, name = width, rows, 1, math.ceil(height / rows), "strips"
    planes = samples if directory.one(PLANAR, 1) == _SEPARATE else 1
    needed = across * down * planes
    if needed > MAX_PIECES:
        raise Flaw(f"it has {needed} {name}, expected at most {MAX_PIECES}")
    offsets = directory.numbers(TILES if tiled else STRIPS)
    lengths = directory.numbers(TILE_BYTES if tiled else STRIP_BYTES)
    raw = directory.one(COMPRESSION, RAW) == RAW
    plain = raw and directory.one(PHOTOMETRIC, 0) != _YCBCR
    full = [high * math.ceil(wide * (samples if planes == 1 else 1) * bits / 8)] * needed
    if not tiled and plain:
        last = height - (down - 1) * high
        full = [size if place % down < down - 1 else size // high * last for place, size in enumerate(full)]
    if plain and not any(lengths):  # some writers leave out what is known
        lengths = full[: len(offsets)]
    if len(offsets) < needed or len(lengths) < needed:
        raise Flaw(f"it lists {min(len(offsets), len(lengths))} of its {needed} {name}")
    for place, (offset, length) in enumerate(zip(offsets, lengths, strict=False)):
        if not offset or not length or offset + length > len(directory.data):
            raise Flaw(f"its {name[:-1]} {place} is empty or lies behind its end")
        if plain and place < needed and length < full[place]:
            raise Flaw(f"its {name[:-1]} {place} has {length} bytes of {full[place]}")
    # Many pieces may share bytes, blank ones do; not so many that reading them takes for ever.
    if sum(lengths) > 4 * len(directory.data) + (1 << 26):
        raise Flaw(f"its {name} have {sum(lengths)} bytes in a file of {len(directory.data)}")
    return Pieces(wide, high, tiled, down, planes, tuple(offsets[:needed]), tuple(lengths[:needed]))
