"""Bounds on pictures, and the weights by which kinds count that cost more than others."""

from __future__ import annotations

from vlmkit.preprocess.image_errors import ImageError

MAX_PIXELS = 160_000_000
"""Bound on height x width, and on height x width x weight, checked before anything is decoded: a JPEG of 150 megapixels opens.

A weight is what a pixel of a kind costs, in memory at its peak or in time, beside what the bound stands for: 1 GiB beside the file
and two seconds of one core (measured on one of 2026).
"""
MAX_SIDE = 65_535
"""Pixels of either side, as many as a JPEG can have: work a row or a column is bounded, too."""
MAX_EXIF = 1 << 17
"""Bytes of camera data, of which the orientation is read; a JPEG holds half of it in one piece."""
MAX_PROFILE = 1 << 23
"""Bytes of a colour profile that is still looked at; those of printing presses have about three million."""
MAX_TEXT = 1 << 20
"""Bytes of XMP, of which the orientation is read."""

# Weights that several formats share. Decoded by Pillow: 4 bytes a pixel, then 4 of the picture in RGB, or 3 of an array.
PLAIN, LAYERED, WIDE, NUMBERS = 1.5, 2.0, 2.5, 4.0
"""8-bit grey, palette or RGB; with opacity or in CMYK; more than 8 bits a sample; 32-bit and floating samples."""


def check_sides(height: int, width: int, name: str) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"{name} is {height}x{width} pixels, expected at least one")
    if max(height, width) > MAX_SIDE:
        raise ImageError(f"{name} is {height}x{width} pixels, expected at most {MAX_SIDE} a side; cut it into pieces")


def check_pixels(height: int, width: int, name: str, most: int, kind: str = "") -> None:
    if height * width > most:
        raise ImageError(
            f"{name} is {height}x{width} = {height * width} pixels, expected at most {most}{kind}; "
            "make it smaller, or pass a larger max_pixels if you trust it"
        )
