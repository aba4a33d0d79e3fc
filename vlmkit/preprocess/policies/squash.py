"""Squash: the whole image is resized to one square, whatever its shape; nothing is cut, the aspect ratio is lost.

SigLIP (Zhai et al. 2023, arXiv:2303.15343), PaliGemma (arXiv:2407.07726, 224, 448 or 896 pixels) and Maya
(arXiv:2412.07112, 256 pixels) see images this way. SigLIP so400m with patches of 14 sees view=378 of size=384.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.preprocess.geometry import ImagePlan, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import SquarePolicy


@policies.register("squash")
@dataclass(frozen=True, kw_only=True)
class Squash(SquarePolicy):
    """480 x 640 and 640 x 480 both become size x size."""

    def plan(self, size: Size) -> ImagePlan:
        square = Size(self.size, self.size)
        return ImagePlan(source=size, renders=(Render(resize=square, canvas=square, tiles=self.squares()),))
