"""Smart resize: keep the aspect ratio, make both sides multiples of a factor, keep the pixel count within bounds."""

from __future__ import annotations


def smart_resize(height: int, width: int, factor: int = 28, min_pixels: int = 64 * 28 * 28, max_pixels: int = 256 * 28 * 28) -> tuple[int, int]:
    raise NotImplementedError
