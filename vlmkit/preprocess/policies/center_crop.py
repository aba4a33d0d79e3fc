"""Centre crop: the shorter side is resized to the view, what the longer side has too much is cut off at both ends.

The rule of CLIP (Radford et al. 2021, arXiv:2103.00020). The longer side becomes size * long / short rounded down, as in
torchvision's Resize and transformers; where an odd number of pixels is cut, one more goes at the bottom or right, as in
transformers' CLIP (torchvision's CenterCrop rounds half to even there). For 480 x 640 and size 336 the image becomes
336 x 448, of which columns 56 to 391 are seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.preprocess.geometry import ImagePlan, ImageSizeError, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import SquarePolicy

MAX_STRIP = 1 << 27
"""Pixels that an image may be resized to before it is cut (400 MB): an aspect ratio of 1188 for 336."""


@policies.register("center_crop")
@dataclass(frozen=True, kw_only=True)
class CenterCrop(SquarePolicy):
    """The largest square in the middle of the image."""

    max_aspect_ratio: int | None = None
    """Longer side over shorter side; thinner images are refused. None: as thin as memory serves, for an image is resized whole before it
    is cut."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_aspect_ratio is not None:
            self.require("max_aspect_ratio", 1)

    def plan(self, size: Size) -> ImagePlan:
        if self.max_aspect_ratio is not None and size.aspect_ratio > self.max_aspect_ratio:
            raise ImageSizeError(
                f"center_crop serves aspect ratios up to {self.max_aspect_ratio}, "
                f"but an image of {size} (height x width) has {size.aspect_ratio:.6g}"
            )
        resize = shorter_to(self.size, size, self.kind)
        render = Render(
            resize=resize,
            canvas=Size(self.size, self.size),
            tiles=self.squares(),
            top=-((resize.height - self.size) // 2),
            left=-((resize.width - self.size) // 2),
        )
        return ImagePlan(source=size, renders=(render,))


def shorter_to(pixels: int, size: Size, kind: str) -> Size:
    """The size whose shorter side has so many pixels; the longer one is rounded down. Raises ImageSizeError beyond MAX_STRIP."""
    short = min(size.height, size.width)
    resized = Size(pixels * size.height // short, pixels * size.width // short)
    if resized.pixels > MAX_STRIP:
        raise ImageSizeError(
            f"{kind} resizes to {MAX_STRIP} pixels at most before it cuts, but an image of {size} (height x width) has {resized.pixels} "
            f"with a shorter side of {pixels}"
        )
    return resized
