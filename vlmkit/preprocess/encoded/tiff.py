"""TIFF 6.0 and BigTIFF: the first directory is read here; the decoder is handed one with the entries that make the picture.

Every strip or tile has to be listed and lie in the file. What libtiff fills in where one ends early it reports (`libtiff.py`), save for two
kinds of compression, which are looked at by themselves (`tiff_pieces.py`).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from PIL import Image

from vlmkit.preprocess.bounds import LAYERED, MAX_PROFILE, MAX_TEXT, NUMBERS, PLAIN, WIDE
from vlmkit.preprocess.encoded import libtiff, tiff_pieces
from vlmkit.preprocess.encoded.surveys import Survey, number
from vlmkit.preprocess.encoded.whole import loaded, opened
from vlmkit.preprocess.image_errors import Flaw

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, SAMPLES, STRIP_ROWS, STRIP_BYTES = 256, 257, 258, 259, 262, 273, 277, 278, 279
PLANAR, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, XMP, PROFILE = 284, 322, 323, 324, 325, 338, 700, 34675
FILL_ORDER, JPEG_TABLES, OPTIONS = 266, 347, 293
_KEPT = frozenset(
    {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIPS, 274, SAMPLES, STRIP_ROWS, STRIP_BYTES, 282, 283, PLANAR, 292}
    | {OPTIONS, 296, 317, 320, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, 339, JPEG_TABLES, 529, 530, 532, XMP, PROFILE}
)
"""Entries that make the picture: those above, orientation, resolution, predictor, palette, formats of samples and of YCbCr."""
_LENGTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value by its type."""
_WHOLE_NUMBERS = (1, 3, 4, 13, 16)
MAX_PIECES = 1 << 16
"""Strips or tiles."""
MAX_ENTRIES = 4096
_MOST_VALUE = 1 << 20
_RAW, _JPEG, _GROUP4, _OLD_JPEG = 1, 7, 4, 6
_YCBCR, _CMYK, _SEPARATE = 6, 5, 2


@dataclass(frozen=True)
class Directory:
    """A directory of a file: where each entry's values stand."""

    data: bytes
    order: str
    big: bool
    entries: dict[int, tuple[int, int, int, bytes]]
    """Type, count, offset of the values, and the entry itself."""

    def numbers(self, tag: int, most: int = MAX_PIECES) -> list[int]:
        """Whole numbers; none where the entry is not there. Raises Flaw."""
        if tag not in self.entries:
            return []
        kind, count, at, _ = self.entries[tag]
        if kind not in _WHOLE_NUMBERS or count > most:
            raise Flaw(f"its entry {tag} has {count} values of type {kind}, expected at most {most} whole numbers")
        length = _LENGTHS[kind]
        values = self.data[at : at + count * length]
        # "little" and "big" are what struct calls < and >.
        return [int.from_bytes(values[place : place + length], self.order) for place in range(0, len(values), length)]  # type: ignore[arg-type]

    def one(self, tag: int, default: int) -> int:
        values = self.numbers(tag, 64)
        return values[0] if values else default


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


def accepts(data: bytes) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def survey(data: bytes) -> Survey:
    directory = _directory(data)
    width, height, samples = directory.one(WIDTH, 0), directory.one(HEIGHT, 0), directory.one(SAMPLES, 1)
    compression, bits = directory.one(COMPRESSION, _RAW), max(directory.numbers(BITS, 64), default=1)
    layered = directory.one(PHOTOMETRIC, 0) == _CMYK or EXTRA in directory.entries
    weight = max(LAYERED if layered or samples > 3 else PLAIN, NUMBERS if bits > 16 else WIDE if bits > 8 else 0)
    if compression in (_GROUP4, _JPEG, _OLD_JPEG):
        weight = max(weight, NUMBERS)  # decoded more than once
    lean = _lean(directory)
    return Survey(
        format="TIFF",
        height=height,
        width=width,
        weight=weight,
        header=functools.partial(opened, "TIFF", lean),
        load=functools.partial(_loaded, directory, lean, (width, height), samples, bits),
    )


def _loaded(directory: Directory, lean: bytes, size: tuple[int, int], samples: int, bits: int) -> Image.Image:
    pieces = _pieces(directory, *size, samples, bits)
    listening, before = libtiff.listen(), libtiff.errors()
    tiff_pieces.check(directory, pieces)
    image = loaded("TIFF", lean, size)
    if listening and libtiff.errors() > before:
        raise Flaw("a strip or tile of it is broken")
    return image


def _directory(data: bytes) -> Directory:
    order = "little" if data[:1] == b"I" else "big"
    big = data[2 if order == "little" else 3] == 43
    offset, count_bytes, entry_bytes, value = (8, 8, 20, 8) if big else (4, 2, 12, 4)
    start = number(data, offset, value, order)
    count = number(data, start, count_bytes, order)
    if count > MAX_ENTRIES:
        raise Flaw(f"its directory has {count} entries, expected at most {MAX_ENTRIES}")
    first = start + count_bytes
    number(data, first, count * entry_bytes, order)
    entries: dict[int, tuple[int, int, int, bytes]] = {}
    for at in range(first, first + count * entry_bytes, entry_bytes):
        tag, kind, values = number(data, at, 2, order), number(data, at + 2, 2, order), number(data, at + 4, value, order)
        if tag not in _KEPT:
            continue
        if tag in entries:
            raise Flaw(f"its entry {tag} is there twice")
        size = _LENGTHS.get(kind, 1) * values
        place = at + 4 + value if size <= value else number(data, at + 4 + value, value, order)
        most = {PROFILE: MAX_PROFILE, XMP: MAX_TEXT}.get(tag, _MOST_VALUE)
        if size > most:
            if tag in (PROFILE, XMP):
                continue
            raise Flaw(f"its entry {tag} has {size} bytes, expected at most {most}")
        if place + size > len(data):
            raise Flaw(f"its entry {tag} lies behind its end")
        entries[tag] = kind, values, place, data[at : at + entry_bytes]
    return Directory(data, order, big, entries)


def _lean(directory: Directory) -> bytes:
    """The file with a directory of its own at the end, the only one, in place of its first. What is not needed to see the picture (other
    pictures, camera data) is still there and no longer named."""
    data, value, count_bytes = directory.data, 8 if directory.big else 4, 8 if directory.big else 2
    start = len(data) + len(data) % 2
    entries = [entry for _, (*_, entry) in sorted(directory.entries.items())]
    order = directory.order
    table = len(entries).to_bytes(count_bytes, order) + b"".join(entries) + bytes(value)  # type: ignore[arg-type]
    at = 8 if directory.big else 4
    return data[:at] + start.to_bytes(value, order) + data[at + value :] + bytes(len(data) % 2) + table  # type: ignore[arg-type]


def _pieces(directory: Directory, width: int, height: int, samples: int, bits: int) -> Pieces:
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
    raw = directory.one(COMPRESSION, _RAW) == _RAW
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
