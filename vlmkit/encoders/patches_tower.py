"""The tower of `patches`, which has no weights."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from vlmkit.encoders.patches import Patches
from vlmkit.encoders.tower import Tower
from vlmkit.features import View


def build(spec: Patches) -> PatchesTower:
    return PatchesTower(spec)


class PatchesTower(Tower):
    def encode(self, patches: Tensor, views: tuple[View, ...]) -> Tensor:
        side = self.spec.patch
        out: Tensor = rearrange(patches, f"n (c dh dw) -> n ({self.spec.order})", dh=side, dw=side)
        return out
