"""WebP: chunks of a RIFF file; libwebp refuses data that ends early.

Pillow decodes it as an animation, which takes 21 bytes a pixel.
"""

from __future__ import annotations

import functools

from vlmkit.preprocess.bounds import MAX_EXIF, NUMBERS
from vlmkit.preprocess.encoded.surveys import Survey, number
from vlmkit.preprocess.encoded.whole import loaded, opened
from vlmkit.preprocess.image_errors import Flaw

MAX_CHUNKS = 10_000
_MOST_CODED = 1 << 25


def accepts(data: bytes) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def survey(data: bytes) -> Survey:
    end = 8 + number(data, 4, 4, "little")
    if end > len(data):
        raise Flaw(f"it ends at byte {len(data)} of {end}")
    data = data[:end]
    at, count = 12, 0
    size: tuple[int, int] | None = None
    while at + 8 <= end:
        name, length = data[at : at + 4], number(data, at + 4, 4, "little")
        count += 1
        if at + 8 + length > end:
            raise Flaw(f"it ends in a chunk {name!r} of {length} bytes")
        if count > MAX_CHUNKS:
            raise Flaw(f"it has more than {MAX_CHUNKS} chunks")
        if name == b"EXIF" and length > MAX_EXIF:
            raise Flaw(f"it has {length} bytes of Exif, expected at most {MAX_EXIF}")
        size = size or _size(name, data, at + 8)
        at += 8 + length + length % 2
    if size is None:
        raise Flaw("it has no picture")
    width, height = size
    return Survey(
        format="WEBP",
        height=height,
        width=width,
        weight=NUMBERS,
        header=functools.partial(opened, "WEBP", data),
        load=functools.partial(loaded, "WEBP", data, size),
        coded=len(data),
        most_coded=_MOST_CODED,
    )


def _size(name: bytes, data: bytes, at: int) -> tuple[int, int] | None:
    """Width and height that a chunk gives for the whole picture."""
    if name == b"VP8 ":
        return number(data, at + 6, 2, "little") & 0x3FFF, number(data, at + 8, 2, "little") & 0x3FFF
    if name == b"VP8L":
        bits = number(data, at + 1, 4, "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if name == b"VP8X":
        return number(data, at + 4, 3, "little") + 1, number(data, at + 7, 3, "little") + 1
    return None
