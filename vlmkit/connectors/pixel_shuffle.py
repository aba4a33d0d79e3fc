"""Pixel shuffle: r x r neighbouring patches become one token with r*r times the channels, then a linear layer or another connector.

Shi et al. 2016 (arXiv:1609.05158) run backwards; as a VLM connector in Idefics3 (arXiv:2408.12637), whose linear layer has no bias, and
with an MLP behind in InternVL 1.5 (arXiv:2404.16821) and NVLM (arXiv:2409.11402):

    InternVL    PixelShuffle(inner=Mlp(norm_in="layer_norm"))
    NVLM-D      PixelShuffle(inner=Mlp(norm_in="layer_norm", hidden=29568, bias=False))

Grid (F, H, W) -> (F, H/r, W/r). InternVL's `ps_version` "v2" is the order "dh dw c", tokens in raster order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.connectors.block_connector import BlockConnector
from vlmkit.features import Grid
from vlmkit.spec import SpecError


@connectors.register("pixel_shuffle")
@dataclass(frozen=True, kw_only=True)
class PixelShuffle(BlockConnector):
    """Space to depth, then one linear layer, or `inner` in its place."""

    bias: bool = False
    """Of the linear layer."""
    inner: Connector | None = None
    """What merged tokens go through, where that is more than a linear layer."""

    later: ClassVar[frozenset[str]] = frozenset({"inner"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner is None:
            return
        if self.inner.towers != 1:
            raise SpecError(f"pixel_shuffle.inner: {self.inner.kind!r} takes several towers; it needs a connector of one")
        if self.bias:
            raise SpecError(f"pixel_shuffle.bias: there is no linear layer beside inner={self.inner.kind!r}; leave it False")

    @property
    def merge(self) -> int:
        return self.ratio if self.inner is None else self.ratio * self.inner.merge

    @property
    def merge_clips(self) -> int:
        return self.ratio if self.inner is None else self.ratio * self.inner.merge_clips

    @property
    def least_frames(self) -> int:
        return 1 if self.inner is None else self.inner.least_frames

    def grid_out(self, grid: Grid) -> Grid:
        merged = super().grid_out(grid)
        return merged if self.inner is None else self.inner.grid_out(merged)

    def problems(self, dim_in: int, dim_out: int) -> list[str]:
        return [] if self.inner is None else self.inner.problems(dim_in * self.ratio**2, dim_out)
