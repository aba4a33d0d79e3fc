"""Decoding by Pillow, and whether it decoded all: the pixel that a decoder writes last has to be written.

A decoder that runs out of data may leave the rest of a picture as it was, in silence. So a mark is set where it writes last. What comes
back without the mark was written to its end. Where the mark is still there it may be the picture's own colour: with another mark
the same file then gives the same picture; one that was not written gives the other mark.
"""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from vlmkit.preprocess.image_errors import Flaw

_MARKS: dict[str, tuple[Any, Any]] = {
    "LA": ((107, 91), (90, 108)),
    "RGB": ((107, 91, 233), (90, 108, 44)),
    "RGBA": ((107, 91, 233, 201), (90, 108, 44, 17)),
    "1": (255, 0),
    "I;16": (27_499, 51_022),
    "I": (27_499, 51_022),
}
_OTHER = (254, 253)


def opened(format: str, data: bytes) -> Image.Image:
    """By one of Pillow's readers and no other; not decoded."""
    return Image.open(io.BytesIO(data), formats=[format])


def loaded(format: str, data: bytes, size: tuple[int, int]) -> Image.Image:
    """Decoded by a reader that fails where anything is missing. size: (width, height) that was looked at, and no other."""
    image = opened(format, data)
    _check_size(image, size)
    image.load()
    return image


def loaded_to_the_end(format: str, data: bytes, size: tuple[int, int], last: tuple[int, int], background: int = 0) -> Image.Image:
    """Decoded by a reader that may stop early, which Flaw says. last: (x, y) of the pixel that it writes last. background: what stands
    where a file has no pixels by its own account."""
    for attempt in (0, 1):
        image = opened(format, data)
        _check_size(image, size)
        mark = _MARKS.get(image.mode, _OTHER)[attempt]
        image.im = Image.new(image.mode, size, background if image.mode in ("L", "P") else 0).im
        image.im.putpixel(last, mark)
        image.load()
        if image.im.getpixel(last) != mark:
            return image
    raise Flaw("its data ends before its last pixel")


def _check_size(image: Image.Image, size: tuple[int, int]) -> None:
    if image.size != size and image.size != size[::-1]:
        raise Flaw(f"it states {size[1]}x{size[0]} pixels in one place and {image.height}x{image.width} in another")


def last_of_rows(width: int, height: int, interlaced: bool = False) -> tuple[int, int]:
    """(x, y) of the pixel written last: of rows from top to bottom, or of GIF's four passes."""
    return width - 1, (height - 1 if not interlaced or height == 1 else (height // 2) * 2 - 1)
