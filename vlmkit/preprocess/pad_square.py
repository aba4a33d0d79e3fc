"""Pad to a square: the longer side fills the view, a colour fills what is left beside the shorter one (letterbox).

LLaVA-1.5 (Liu et al. 2023, arXiv:2310.03744) pads the image to a square of its longer side with the mean colour, then
resizes the square. Here the image alone is resized and then placed: the same geometry, with each edge of the image at the
whole pixel nearest to where LLaVA's lies. The padded pixels differ in the one row or column where LLaVA's resampling
blends image and colour. For 480 x 640 and size 336 the image becomes 252 x 336 at (42, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmkit.preprocess import policies
from vlmkit.preprocess.base import SquarePolicy
from vlmkit.preprocess.geometry import Box, ImagePlan, Render, Size
from vlmkit.spec import SpecError

MEAN_COLOUR = (122, 116, 104)
"""CLIP's mean (arXiv:2103.00020) times 255, rounded down as LLaVA does: nearly 0 after CLIP's normalisation."""


@policies.register("pad_square")
@dataclass(frozen=True, kw_only=True)
class PadSquare(SquarePolicy):
    """The whole image, its aspect ratio kept, centred on a square of one colour."""

    fill: tuple[int, int, int] | Literal["mean"] = "mean"
    """RGB beside the image, 0 to 255; "mean" is CLIP's mean colour, 122, 116, 104."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fill != "mean" and not all(0 <= value <= 255 for value in self.fill):
            raise SpecError(f"pad_square.fill: expected three values from 0 to 255, got {self.fill}")

    def plan(self, size: Size) -> ImagePlan:
        long = max(size.height, size.width)
        top, bottom = self._edges(size.height, long)
        left, right = self._edges(size.width, long)
        render = Render(
            resize=Size(bottom - top, right - left),
            canvas=Size(self.size, self.size),
            tiles=(Box(0, 0, self.size, self.size),),
            top=top,
            left=left,
            fill=MEAN_COLOUR if self.fill == "mean" else self.fill,
        )
        return ImagePlan(source=size, renders=(render,))

    def _edges(self, side: int, long: int) -> tuple[int, int]:
        """First and last edge of a side: padded to `long` as LLaVA does, the odd pixel behind, scaled, halves rounded up."""
        pad = (long - side) // 2
        first = (2 * pad * self.size + long) // (2 * long)
        last = (2 * (pad + side) * self.size + long) // (2 * long)
        return first, max(last, first + 1)
