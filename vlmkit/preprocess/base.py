"""The contract of an image policy: a size goes in, a plan comes out; no pixels are touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmkit.preprocess import policies
from vlmkit.preprocess.geometry import ImagePlan, Size
from vlmkit.spec import Spec

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
