"""Edge bounds: the longer side is shrunk to an upper bound, each side is stretched to a lower bound, and what does not fill
a patch at the bottom and on the right is cut off.

Idefics2 (Laurencon et al. 2024, arXiv:2405.02246), whose encoder masks every patch that is not full of image. The shorter
side is rounded down, in floating point as published. For bounds of 378 and 980 and a factor of 14, 480 x 640 stays and its
476 x 630 upper left pixels, 34 x 45 patches, are seen; 100 x 2000 becomes 378 x 980.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.preprocess.geometry import Box, ImagePlan, ImageSizeError, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import FactorPolicy, Resample
from vlmkit.spec import SpecError


@policies.register("edge_bounds")
@dataclass(frozen=True, kw_only=True)
class EdgeBounds(FactorPolicy):
    """One view of nearly the image's own shape, or its four quarters and then the whole."""

    resample: Resample = "bilinear"
    shortest: int = 378
    """Pixels that each side has at least after resizing."""
    longest: int = 980
    """Pixels that the longer side has at most."""
    factor: int = 14
    quarters: bool = False
    """Four views of the quarters, in raster order, before the view of the whole; each is resized by the same rule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.factor <= self.shortest <= self.longest:
            raise SpecError(f"edge_bounds: expected factor <= shortest <= longest, got {self.factor}, {self.shortest} and {self.longest}")

    def plan(self, size: Size) -> ImagePlan:
        if not self.quarters:
            return ImagePlan(source=size, renders=(self._render(size),))
        if min(size.height, size.width) < 2:
            raise ImageSizeError(f"edge_bounds cuts quarters, but an image of {size} (height x width) has a side of 1 pixel")
        middle, centre = size.height // 2, size.width // 2
        rows, columns = ((0, middle), (middle, size.height - middle)), ((0, centre), (centre, size.width - centre))
        quarters = [Box(top, left, height, width) for top, height in rows for left, width in columns]
        return ImagePlan(source=size, renders=(*(self._render(box.size, box) for box in quarters), self._render(size)))

    def _render(self, size: Size, frame: Box | None = None) -> Render:
        height, width = self._bounded(size)
        seen = Box(0, 0, height // self.factor * self.factor, width // self.factor * self.factor)
        picture = Size(height, width)
        return Render(frame=frame, resize=picture, canvas=picture, tiles=(seen,))

    def _bounded(self, size: Size) -> tuple[int, int]:
        height, width, aspect = size.height, size.width, size.width / size.height
        if width >= height and width > self.longest:
            height, width = int(self.longest / aspect), self.longest
        elif height > width and height > self.longest:
            height, width = self.longest, int(self.longest * aspect)
        return max(height, self.shortest), max(width, self.shortest)
