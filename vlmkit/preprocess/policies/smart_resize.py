"""Smart resize: keep the aspect ratio, make both sides multiples of a factor, keep the pixel count within bounds.

The rule of Qwen2-VL (Wang et al. 2024, arXiv:2409.12191), with the bounds of Olmo-3.1-UNIVA-VL: 64 to 256 squares of 28
pixels, each of which becomes one visual token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from vlmkit.preprocess.geometry import ImagePlan, ImageSizeError, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import FactorPolicy, check_times
from vlmkit.spec import Spec, SpecError

FACTOR = 28
"""A patch of 14 pixels times a merge of 2."""
MIN_PIXELS = 64 * FACTOR * FACTOR
MAX_PIXELS = 256 * FACTOR * FACTOR
MAX_ASPECT_RATIO = 200


def smart_resize(
    height: int,
    width: int,
    factor: int = FACTOR,
    min_pixels: int = MIN_PIXELS,
    max_pixels: float = MAX_PIXELS,
    max_aspect_ratio: int = MAX_ASPECT_RATIO,
) -> tuple[int, int]:
    """The (height, width) to resize to, for example 480 x 640 -> 364 x 504, that is 13 x 18 = 234 tokens.

    1. Both sides go to the nearest multiple of `factor`; halfway goes to the even multiple (Python's `round`).
    2. More than `max_pixels`: both sides are scaled by sqrt(max_pixels / pixels) instead and rounded down, but not to 0.
    3. Fewer than `min_pixels`: both sides are scaled by sqrt(min_pixels / pixels) instead and rounded up.

    The square roots are floating point on purpose: the answer is the one of `smart_resize` in transformers' Qwen2-VL for
    every input, also where rounding decides.

    With the default bounds the result always has 64 to 256 squares of `factor`: in units of the factor, step 2 multiplies
    sides a * b = 256 with a >= sqrt(256 / 200) > 1, which rounding down leaves above a quarter of 256, and step 3 sides
    a * b = 64 with a + b <= 114, which rounding up leaves below 64 + 114 + 1. Other bounds may be missed, by the rounding
    of one side, where they lie close together, and where the thinnest image does not fit (`max_pixels` below
    max_aspect_ratio * factor ** 2): 28 x 5600 under 100 * 28 * 28 pixels stays 28 pixels high and keeps 141 squares.

    Raises ImageSizeError for a side below 1 and for an aspect ratio above `max_aspect_ratio`.
    """
    size = Size(height, width)
    if size.aspect_ratio > max_aspect_ratio:
        raise ImageSizeError(
            f"smart_resize serves aspect ratios up to {max_aspect_ratio}, "
            f"but an image of {size} (height x width) has {size.aspect_ratio:.6g}"
        )
    rows, columns = round(height / factor), round(width / factor)
    if rows * columns * factor * factor > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(1, math.floor(height / shrink / factor))
        columns = max(1, math.floor(width / shrink / factor))
    elif rows * columns * factor * factor < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor)
        columns = math.ceil(width * grow / factor)
    return rows * factor, columns * factor


@dataclass(frozen=True, kw_only=True)
class ClipPixels(Spec):
    """How many pixels a frame of a film may have: bounds of its own, and an even share of what all shown frames may have together.

    The defaults are those of qwen-vl-utils. transformers' processor of Qwen2-VL has the same bounds and, unless told otherwise, no
    budget (`total_pixels=None`); the one of VideoLLaMA 3 has a budget alone (`frames_per_share=1, least=0.0, whole=True`, and
    `max_pixels` equal to `total_pixels`).
    """

    factor: int | None = None
    """Both sides of a frame are multiples of this many pixels; None: as of a picture."""
    min_pixels: int = 128 * FACTOR * FACTOR
    """Frames of fewer pixels are enlarged to at least this many."""
    max_pixels: int = 768 * FACTOR * FACTOR
    """Frames of more pixels are shrunk to at most this many."""
    total_pixels: int | None = 115_200 * FACTOR * FACTOR
    """Pixels of all shown frames together, divided evenly among them; None is without bound."""
    frames_per_share: int = 2
    """Frames that count as one when the budget is divided: those of a patch."""
    least: float = 1.05
    """However many frames there are, each may have this many times `min_pixels`."""
    whole: bool = False
    """Whether a share is rounded down to whole pixels, which decides where a side lies on the edge of a multiple."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor is not None and self.factor < 1:
            raise SpecError(f"clip.factor: expected 1 or more, or None, got {self.factor}")
        if not 1 <= self.min_pixels <= self.max_pixels:
            raise SpecError(f"clip: expected 1 <= min_pixels <= max_pixels, got {self.min_pixels} and {self.max_pixels}")
        if self.total_pixels is not None and self.total_pixels < 1:
            raise SpecError(f"clip.total_pixels: expected 1 or more pixels, or None, got {self.total_pixels}")
        if self.frames_per_share < 1:
            raise SpecError(f"clip.frames_per_share: expected 1 or more, got {self.frames_per_share}")
        if self.least < 0:
            raise SpecError(f"clip.least: expected 0 or more, got {self.least:g}")

    def most(self, frames: int) -> float:
        """The most pixels that a frame may have, of so many: 602112 of 40, 235200 of 768 under the defaults."""
        if self.total_pixels is None:
            return self.max_pixels
        total = self.total_pixels * self.frames_per_share
        share = total // frames if self.whole else total / frames
        return max(min(self.max_pixels, share), int(self.min_pixels * self.least))


@policies.register("smart_resize")
@dataclass(frozen=True, kw_only=True)
class SmartResize(FactorPolicy):
    """One view of nearly the image's own shape, see the function `smart_resize`."""

    factor: int = FACTOR
    min_pixels: int = MIN_PIXELS
    """Images of fewer pixels are enlarged to at least this many."""
    max_pixels: int = MAX_PIXELS
    """Images of more pixels are shrunk to at most this many."""
    max_aspect_ratio: int = MAX_ASPECT_RATIO
    """Longer side over shorter side; thinner images are refused."""
    clip: ClipPixels | None = None
    """The bounds of a film's frames; None: those of a picture."""

    later: ClassVar[frozenset[str]] = frozenset({"clip"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_aspect_ratio < 1:
            raise SpecError(f"smart_resize.max_aspect_ratio: expected 1 or more, got {self.max_aspect_ratio}")
        if not 1 <= self.min_pixels <= self.max_pixels:
            raise SpecError(f"smart_resize: expected 1 <= min_pixels <= max_pixels, got {self.min_pixels} and {self.max_pixels}")
        if self.max_pixels < self.factor**2:
            raise SpecError(
                f"smart_resize.max_pixels: {self.max_pixels} pixels do not hold one square of {self.factor} ({self.factor**2} pixels)"
            )

    def plan(self, size: Size) -> ImagePlan:
        return self._plan(size, self.factor, self.min_pixels, self.max_pixels)

    def plan_clip(self, size: Size, times: tuple[float, ...]) -> ImagePlan:
        if self.clip is None:
            return super().plan_clip(size, times)
        factor, most = self.clip.factor or self.factor, self.clip.most(len(check_times(times)))
        return replace(self._plan(size, factor, self.clip.min_pixels, most), times=times)

    def _plan(self, size: Size, factor: int, min_pixels: int, max_pixels: float) -> ImagePlan:
        height, width = smart_resize(size.height, size.width, factor, min_pixels, max_pixels, self.max_aspect_ratio)
        return ImagePlan(source=size, renders=(Render.whole(Size(height, width)),))
