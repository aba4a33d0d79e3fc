"""Numbers that models say of a place, and pixels.

A place at the left edge is 0 on every scale; at the right edge it is 1, 100, 1000, 1023 or the width. PaliGemma's bins are not a 1024th
wide: its preparation rounds 1023 times the relative coordinate, and its evaluation divides by 1023 (big_vision, pp/proj/paligemma/
segmentation.py and evaluators/proj/paligemma/transfers/segmentation.py), although code in circulation divides by 1024.
"""

from __future__ import annotations

from typing import Literal

from vlmkit.pointing.values import PointingError
from vlmkit.preprocess.geometry import Size

Scale = Literal["relative", "percent", "thousandths", "bins", "pixels"]

ENDS: dict[Scale, int] = {"relative": 1, "percent": 100, "thousandths": 1000, "bins": 1023}
"""What the right edge and the lower edge are; of pixels it depends on the size."""


def to_pixels(x: float, y: float, scale: Scale, size: Size) -> tuple[float, float]:
    """to_pixels(50, 25, "percent", Size(480, 640)) is (320.0, 120.0). Neither rounded nor kept inside."""
    across, down = _ends(scale, size)
    return x * size.width / across, y * size.height / down


def from_pixels(x: float, y: float, scale: Scale, size: Size) -> tuple[float, float]:
    """The inverse, not rounded: from_pixels(320, 120, "percent", Size(480, 640)) is (50.0, 25.0)."""
    across, down = _ends(scale, size)
    return x * across / size.width, y * down / size.height


def _ends(scale: Scale, size: Size) -> tuple[int, int]:
    if scale == "pixels":
        return size.width, size.height
    if scale not in ENDS:
        raise PointingError(f"{scale!r} is no scale, expected one of {', '.join(ENDS)}, pixels")
    return ENDS[scale], ENDS[scale]
