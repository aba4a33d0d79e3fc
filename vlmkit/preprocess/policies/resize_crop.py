"""Resize and crop: one resize and one cut out of the middle, either of which may be left out, as published image processors state them.

The general pipeline of transformers' image processors for CLIP (Radford et al. 2021, arXiv:2103.00020) and SigLIP (arXiv:2303.15343).
`center_crop` and `squash` are its cases whose views are squares as large as the resize. The shorter side is resized as `center_crop` does.
Where the cut is larger than the picture, black is put around that, the odd pixel below or on the right. What does not fill a patch at the
bottom and on the right is not seen, for an encoder's convolution leaves it out. For patches of 14, 480 x 640 with shortest=42 becomes
42 x 56, all of which is seen, and with crop=(28, 56) rows 7 to 34.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.preprocess.geometry import Box, ImagePlan, ImageSizeError, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import FactorPolicy
from vlmkit.preprocess.policies.center_crop import shorter_to
from vlmkit.spec import SpecError


@policies.register("resize_crop")
@dataclass(frozen=True, kw_only=True)
class ResizeCrop(FactorPolicy):
    """One view: of a fixed size with `crop` or a `resize` to both sides, else of the image's own shape."""

    resize: tuple[int, int] | int | None = None
    """(height, width) that every image is resized to, the pixels of its shorter side, or None: images stay as they are."""
    crop: tuple[int, int] | None = None
    """(height, width) that is cut out of the middle; None is all of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("resize", 1), ("crop", self.factor)):
            value = getattr(self, name)
            sides = value if isinstance(value, tuple) else () if value is None else (value,)
            if any(side < least for side in sides):
                raise SpecError(f"resize_crop.{name}: expected sides of {least} pixels or more, got {value}")

    def plan(self, size: Size) -> ImagePlan:
        picture = self._picture(size)
        canvas = picture if self.crop is None else Size(*self.crop)
        seen = [side // self.factor * self.factor for side in (canvas.height, canvas.width)]
        if min(seen) < 1:
            raise ImageSizeError(
                f"resize_crop sees whole squares of {self.factor} pixels (factor), but an image of {size} (height x width) has "
                f"{picture} after resizing"
            )
        render = Render(
            resize=picture,
            canvas=canvas,
            tiles=(Box(0, 0, *seen),),
            top=_middle(canvas.height, picture.height),
            left=_middle(canvas.width, picture.width),
        )
        return ImagePlan(source=size, renders=(render,))

    def _picture(self, size: Size) -> Size:
        if self.resize is None:
            return size
        return Size(*self.resize) if isinstance(self.resize, tuple) else shorter_to(self.resize, size, self.kind)


def _middle(canvas: int, picture: int) -> int:
    """Where a picture begins on its canvas: half of what is left over goes before it, half of what is too much is cut there."""
    return (canvas - picture) // 2 if canvas >= picture else -((picture - canvas) // 2)
