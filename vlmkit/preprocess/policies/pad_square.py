"""Pad to a square, then resize the square: the image's aspect ratio is kept, a colour fills what is left beside it.

LLaVA-1.5 (Liu et al. 2023, arXiv:2310.03744) pads with the mean colour, the odd pixel below or on the right. Since padding
comes first, the filter blends image and colour where they meet; `letterbox` resizes first and keeps the edge sharp. For
480 x 640 and size 336 the frame is 640 x 640 from row -80, and the image takes rows 42 to 293 of the view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmkit.preprocess.geometry import Box, ImagePlan, ImageSizeError, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import Colour, SquarePolicy, check_colour

MEAN_COLOUR = (122, 116, 104)
"""CLIP's mean (arXiv:2103.00020) times 255, rounded down as LLaVA does: nearly 0 after CLIP's normalisation."""
MAX_STRIP = 1 << 27
"""Pixels of the strip, size x longer side, that padding may need (400 MB): 399,457 pixels on the longer side for 336."""


@policies.register("pad_square")
@dataclass(frozen=True, kw_only=True)
class PadSquare(SquarePolicy):
    """The whole image, its aspect ratio kept, in the middle of a square of one colour."""

    fill: Colour | Literal["mean"] = "mean"
    """RGB beside the image, 0 to 255; "mean" is CLIP's mean colour, 122, 116, 104."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fill != "mean":
            check_colour("pad_square.fill", self.fill)

    def plan(self, size: Size) -> ImagePlan:
        long, square = max(size.height, size.width), Size(self.size, self.size)
        if long * self.size > MAX_STRIP:
            raise ImageSizeError(
                f"pad_square(size={self.size}) serves sides up to {MAX_STRIP // self.size} pixels, "
                f"but an image of {size} (height x width) has {long}"
            )
        render = Render(
            frame=Box(-((long - size.height) // 2), -((long - size.width) // 2), long, long),
            resize=square,
            canvas=square,
            tiles=self.squares(),
            fill=MEAN_COLOUR if self.fill == "mean" else self.fill,
        )
        return ImagePlan(source=size, renders=(render,))
