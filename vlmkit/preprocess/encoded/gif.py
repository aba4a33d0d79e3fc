"""GIF (89a): of an animation the first frame alone is handed to the decoder."""

from __future__ import annotations

import functools

from PIL import Image

from vlmkit.preprocess.bounds import NUMBERS
from vlmkit.preprocess.encoded.surveys import Survey, number
from vlmkit.preprocess.encoded.whole import last_of_rows, loaded_to_the_end, opened
from vlmkit.preprocess.image_errors import Flaw

MAX_BLOCKS = 100_000
"""Of comments and other extensions before the first frame."""


def accepts(data: bytes) -> bool:
    return data.startswith((b"GIF87a", b"GIF89a"))


def survey(data: bytes) -> Survey:
    width, height = number(data, 6, 2, "little"), number(data, 8, 2, "little")
    flags = number(data, 10, 1)
    start = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0)
    frame, transparent = _first_frame(data, start)
    left, top, wide, high = (number(data, frame + at, 2, "little") for at in (1, 3, 5, 7))
    flags = number(data, frame + 9, 1)
    if flags & 128:
        number(data, frame + 10, 3 << (flags & 7) + 1)
    if wide < 1 or high < 1:
        raise Flaw("its first frame has no pixels")
    size = max(width, left + wide), max(height, top + high)
    x, y = last_of_rows(wide, high, bool(flags & 64))
    lean = data[:start] + data[frame:]
    return Survey(
        format="GIF",
        height=size[1],
        width=size[0],
        weight=NUMBERS,
        header=functools.partial(_opened, lean),
        load=functools.partial(_loaded, lean, size, (left + x, top + y), transparent),
    )


def _first_frame(data: bytes, at: int) -> tuple[int, int | None]:
    """Where it begins, and its transparent colour. What stands before it, texts and waiting times, is passed over."""
    transparent, blocks = None, 0
    while (kind := number(data, at, 1)) == 0x21:
        label, at = number(data, at + 1, 1), at + 2
        if label == 0xF9 and number(data, at, 1) >= 4:
            transparent = number(data, at + 4, 1) if number(data, at + 1, 1) & 1 else None
        while length := number(data, at, 1):
            at += 1 + length
            blocks += 1
            if blocks > MAX_BLOCKS:
                raise Flaw(f"it has more than {MAX_BLOCKS} blocks before its first frame")
        at += 1
    if kind != 0x2C:
        raise Flaw("it has no frame")
    return at, transparent


def _opened(lean: bytes) -> Image.Image:
    return opened("GIF", lean)


def _loaded(lean: bytes, size: tuple[int, int], last: tuple[int, int], transparent: int | None) -> Image.Image:
    image = loaded_to_the_end("GIF", lean, size, last, background=transparent or 0)
    if transparent is not None:
        image.info["transparency"] = transparent
    return image
