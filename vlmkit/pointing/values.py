"""A point and a box, in pixels from the upper left corner of a picture, right and down. Not rounded, and not kept inside of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

MASK_TOKENS = 16
"""Codes of one mask: four rows of four."""
MASK_CODES = 128
"""Different codes."""


class PointingError(ValueError):
    """A place that is none, that a style cannot write, or words that say one wrongly."""


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float
    label: str = ""
    """What is there; empty where nothing is said of it."""

    def __post_init__(self) -> None:
        _check_finite("point", self.x, self.y)


@dataclass(frozen=True, slots=True)
class Box:
    """Edges, of which opposite ones may coincide. Raises PointingError where they are the wrong way round."""

    left: float
    top: float
    right: float
    bottom: float
    label: str = ""
    """What is there; empty where nothing is said of it."""
    mask: tuple[int, ...] = ()
    """16 codes of 0 to 127 that say which part of the box it is, stretched over it; empty where nothing is said of it. They stay codes:
    pixels take the published decoder of a VQ-VAE (Ning et al. 2023, arXiv:2301.02229; big_vision's vae-oid.npz), which is not part of
    vlmkit."""

    def __post_init__(self) -> None:
        _check_finite("box", self.left, self.top, self.right, self.bottom)
        if self.left > self.right or self.top > self.bottom:
            raise PointingError(
                f"a box has its left edge before its right one and its top above its bottom, got left {self.left:g}, top {self.top:g}, "
                f"right {self.right:g}, bottom {self.bottom:g}"
            )
        if len(self.mask) not in (0, MASK_TOKENS):
            raise PointingError(f"a mask is {MASK_TOKENS} codes, got {len(self.mask)}")
        for code in self.mask:
            if type(code) is not int or not 0 <= code < MASK_CODES:
                raise PointingError(f"a code of a mask is a whole number from 0 to {MASK_CODES - 1}, got {code!r}")


Item = Point | Box


def _check_finite(what: str, *numbers: float) -> None:
    for number in numbers:
        if not math.isfinite(number):
            raise PointingError(f"a {what} is at finite numbers of pixels, got {number!r}")
