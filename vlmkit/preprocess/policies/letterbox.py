"""Letterbox: the longer side is resized to the view, the picture is then placed in the middle of a square of one colour.

Janus-Pro (Chen et al. 2025, arXiv:2501.17811). Sides become round(side * (size / longer side)), halves to the even number,
computed in floating point as published, and no less than `min_side`; where an odd number of pixels is padded, one more
goes below or on the right. `pad_square` pads first. For 480 x 640 and size 384 the picture is 288 x 384 at row 48.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.preprocess.geometry import ImagePlan, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import Colour, SquarePolicy, check_colour
from vlmkit.spec import SpecError


@policies.register("letterbox")
@dataclass(frozen=True, kw_only=True)
class Letterbox(SquarePolicy):
    """The whole image, its aspect ratio kept down to a least side, in the middle of a square of one colour."""

    fill: Colour = (127, 127, 127)
    """RGB beside the image, 0 to 255."""
    min_side: int = 1
    """Pixels that the shorter side keeps at least; thinner images are stretched."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_colour("letterbox.fill", self.fill)
        if not 1 <= self.min_side <= self.size:
            raise SpecError(f"letterbox.min_side: expected 1 to {self.size} pixels (size), got {self.min_side}")

    def plan(self, size: Size) -> ImagePlan:
        scale = self.size / max(size.height, size.width)
        height, width = (max(round(side * scale), self.min_side) for side in (size.height, size.width))
        render = Render(
            resize=Size(height, width),
            canvas=Size(self.size, self.size),
            tiles=self.squares(),
            top=(self.size - height) // 2,
            left=(self.size - width) // 2,
            fill=self.fill,
        )
        return ImagePlan(source=size, renders=(render,))
