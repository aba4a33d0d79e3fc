"""Edge cap: neither side is longer than a cap, then both are stretched up to a multiple of the patch; small images stay.

Pixtral (Agrawal et al. 2024, arXiv:2410.07073) and Mistral Small 3.1. Where a side is above the cap, both are divided by
max(height / cap, width / cap) and rounded down; the multiple is reached by resizing, not by padding. Floating point, as
published. For a cap of 1024 and a factor of 16, 480 x 640 stays, and 1000 x 3000 becomes 341 x 1024, then 352 x 1024: 22 x
64 patches. Thinner than 1024 to 1 the shorter side is rounded down to nothing, and the image is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.preprocess.geometry import ImagePlan, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import FactorPolicy


@policies.register("edge_cap")
@dataclass(frozen=True, kw_only=True)
class EdgeCap(FactorPolicy):
    """One view of nearly the image's own shape, never much larger than the image."""

    longest: int = 1024
    """Pixels of the longer side at most, before it goes up to a multiple of the factor."""
    factor: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("longest", 1)

    def plan(self, size: Size) -> ImagePlan:
        ratio = max(size.height / self.longest, size.width / self.longest)
        fitted = size if ratio <= 1 else self.resized(size, int(size.height / ratio), int(size.width / ratio))
        height, width = (-(-side // self.factor) * self.factor for side in (fitted.height, fitted.width))
        return ImagePlan(source=size, renders=(Render.whole(Size(height, width)),))
