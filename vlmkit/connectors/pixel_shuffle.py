"""Pixel shuffle: r x r neighbouring patches become one token with r*r times the channels, then a linear layer.

Shi et al. 2016 (arXiv:1609.05158) run backwards; as a VLM connector in InternVL 1.5 (arXiv:2404.16821) and Idefics3
(arXiv:2408.12637), whose linear layer has no bias. Grid (F, H, W) -> (F, H/r, W/r).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vlmkit.connectors import connectors
from vlmkit.connectors.blocks import BlockConnector, merge_blocks
from vlmkit.features import Features


@connectors.register("pixel_shuffle")
@dataclass(frozen=True, kw_only=True)
class PixelShuffle(BlockConnector):
    """Space to depth, then one linear layer."""

    bias: bool = False

    def build(self, dim_in: int, dim_out: int) -> nn.Module:
        return PixelShuffleModule(self, dim_in, dim_out)


class PixelShuffleModule(nn.Module):
    def __init__(self, spec: PixelShuffle, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        self.linear = nn.Linear(dim_in * spec.ratio**2, dim_out, bias=spec.bias)

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (N / r^2, D_lm)"""
        grids = tuple(self.spec.grid_out(grid) for grid in features.grids)
        return Features(self.linear(merge_blocks(features, self.spec.ratio, self.spec.order)), grids)
