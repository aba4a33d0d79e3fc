"""The first directory of a TIFF or BigTIFF: its entries, held against the file, and the same file with what makes the picture alone."""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.preprocess.bounds import MAX_PROFILE, MAX_TEXT
from vlmkit.preprocess.encoded.surveys import number
from vlmkit.preprocess.image_errors import Flaw

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIPS, SAMPLES, STRIP_ROWS, STRIP_BYTES = 256, 257, 258, 259, 262, 273, 277, 278, 279
PLANAR, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, XMP, PROFILE = 284, 322, 323, 324, 325, 338, 700, 34675
FILL_ORDER, GROUP3_OPTIONS, GROUP4_OPTIONS, JPEG_TABLES = 266, 292, 293, 347
_KEPT = frozenset(
    {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIPS, 274, SAMPLES, STRIP_ROWS, STRIP_BYTES, 282, 283, PLANAR}
    | {GROUP3_OPTIONS, GROUP4_OPTIONS, 296, 317, 320, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, EXTRA, 339, JPEG_TABLES}
    | {529, 530, 532, XMP, PROFILE}
)
"""Entries that make the picture: those above, orientation, resolution, predictor, palette, formats of samples and of YCbCr."""
_LENGTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value by its type."""
_WHOLE_NUMBERS = (1, 3, 4, 13, 16)
MAX_PIECES = 1 << 16
"""Strips or tiles."""
MAX_ENTRIES = 4096
_MOST_VALUE = 1 << 20
RAW, FAX, GROUP3, GROUP4, OLD_JPEG, JPEG = 1, 2, 3, 4, 6, 7
"""Kinds of compression."""


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


def read(data: bytes) -> Directory:
    """Raises Flaw where an entry is too large or lies outside the file."""
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


def lean(directory: Directory) -> bytes:
    """The file with a directory of its own at the end, the only one, in place of its first. What is not needed to see the picture (other
    pictures, camera data) is still there and no longer named."""
    data, value, count_bytes = directory.data, 8 if directory.big else 4, 8 if directory.big else 2
    start = len(data) + len(data) % 2
    entries = [entry for _, (*_, entry) in sorted(directory.entries.items())]
    order = directory.order
    table = len(entries).to_bytes(count_bytes, order) + b"".join(entries) + bytes(value)  # type: ignore[arg-type]
    at = 8 if directory.big else 4
    return data[:at] + start.to_bytes(value, order) + data[at + value :] + bytes(len(data) % 2) + table  # type: ignore[arg-type]
