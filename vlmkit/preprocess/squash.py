"""Squash: the whole image is resized to one square, whatever its shape; nothing is cut, the aspect ratio is lost.

SigLIP (Zhai et al. 2023, arXiv:2303.15343) and PaliGemma (arXiv:2407.07726) see images this way.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.preprocess import policies
from vlmkit.preprocess.base import SquarePolicy
from vlmkit.preprocess.geometry import ImagePlan, Render, Size


@policies.register("squash")
@dataclass(frozen=True, kw_only=True)
class Squash(SquarePolicy):
    """480 x 640 and 640 x 480 both become size x size."""

    def plan(self, size: Size) -> ImagePlan:
        return ImagePlan(source=size, renders=(Render.whole(Size(self.size, self.size)),))
