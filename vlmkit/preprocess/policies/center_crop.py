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


@policies.register("center_crop")
@dataclass(frozen=True, kw_only=True)
class CenterCrop(SquarePolicy):
    """The largest square in the middle of the image."""

    max_aspect_ratio: int = 200
    """Longer side over shorter side; thinner images are refused, since they are resized whole before they are cut."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("max_aspect_ratio", 1)

    def plan(self, size: Size) -> ImagePlan:
        if size.aspect_ratio > self.max_aspect_ratio:
            raise ImageSizeError(
                f"center_crop serves aspect ratios up to {self.max_aspect_ratio}, "
                f"but an image of {size} (height x width) has {size.aspect_ratio:.6g}"
            )
        short = min(size.height, size.width)
        resize = Size(self.size * size.height // short, self.size * size.width // short)
        render = Render(
            resize=resize,
            canvas=Size(self.size, self.size),
            tiles=self.squares(),
            top=-((resize.height - self.size) // 2),
            left=-((resize.width - self.size) // 2),
        )
        return ImagePlan(source=size, renders=(render,))
