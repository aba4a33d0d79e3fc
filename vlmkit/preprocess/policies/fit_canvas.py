"""Fit a canvas: what is larger than a canvas of fixed size is shrunk to fit it; what does not fill a patch is padded.

Fuyu (Bavishi et al. 2023, adept.ai/blog/fuyu-8b). An image that fits stays as it is. Both sides of any other are multiplied
by min(canvas height / height, canvas width / width) and rounded down, in floating point as published. The padding goes below
and on the right up to the next multiple, not up to the canvas. For 1080 x 1920 and a factor of 30, 480 x 640 is not resized
and becomes 480 x 660, and 2000 x 1500 becomes 1080 x 810. Where a side is rounded down to nothing the image is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.preprocess.geometry import Box, ImagePlan, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import Colour, FactorPolicy, Resample, check_colour


@policies.register("fit_canvas")
@dataclass(frozen=True, kw_only=True)
class FitCanvas(FactorPolicy):
    """One view of the image's own shape, never enlarged."""

    resample: Resample = "bilinear"
    height: int = 1080
    """Pixels from top to bottom at most."""
    width: int = 1920
    """Pixels from left to right at most."""
    factor: int = 30
    fill: Colour = (1, 1, 1)
    """RGB of the padding, 0 to 255. transformers' Fuyu pads bytes with 1, nearly black."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("height", 1)
        self.require("width", 1)
        check_colour("fit_canvas.fill", self.fill)

    def plan(self, size: Size) -> ImagePlan:
        picture = size
        if size.height > self.height or size.width > self.width:
            scale = min(self.height / size.height, self.width / size.width)
            picture = self.resized(size, int(size.height * scale), int(size.width * scale))
        height, width = (-(-side // self.factor) * self.factor for side in (picture.height, picture.width))
        render = Render(resize=picture, canvas=Size(height, width), tiles=(Box(0, 0, height, width),), fill=self.fill)
        return ImagePlan(source=size, renders=(render,))
