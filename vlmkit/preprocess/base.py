"""The contract of an image policy: a size goes in, a plan comes out; no pixels are touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmkit.preprocess import policies
from vlmkit.preprocess.geometry import ImagePlan, Size
from vlmkit.spec import Spec, SpecError

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True, kw_only=True)
class ImagePolicy(Spec):
    """Base of image policies: how an image is resized, padded and cut into views."""

    registry = policies

    resample: Resample = "bicubic"
    """Filter of the resampling."""
    antialias: bool = True
    """Widen the filter when shrinking, as PIL does."""

    def plan(self, size: Size) -> ImagePlan:
        """What to do with an image of this size. Raises ImageSizeError where the policy cannot serve it."""
        raise NotImplementedError

    def problems(self, multiple: int) -> list[str]:
        """Why views of this policy would not be whole multiples of `multiple` pixels (patch x merge); empty if they are."""
        return []


@dataclass(frozen=True, kw_only=True)
class SquarePolicy(ImagePolicy):
    """Base of policies that give one square view of a fixed size."""

    size: int
    """Side of the view in pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise SpecError(f"{self.kind}.size: expected 1 or more pixels, got {self.size}")

    def problems(self, multiple: int) -> list[str]:
        if self.size % multiple == 0:
            return []
        nearest = max(1, (self.size + multiple // 2) // multiple) * multiple
        return [
            f"policy '{self.kind}(size={self.size})' gives views of {self.size}x{self.size} pixels, which are not a whole number of the "
            f"{multiple} pixels that patch and merge need. Use a size that is a multiple of {multiple}, such as {nearest}."
        ]
