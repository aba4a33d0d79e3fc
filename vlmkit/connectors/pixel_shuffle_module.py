"""The module of `pixel_shuffle`."""

from __future__ import annotations

from torch import nn

from vlmkit.connectors.blocks import merge_blocks
from vlmkit.connectors.pixel_shuffle import PixelShuffle
from vlmkit.features import Features


def build(spec: PixelShuffle, dim_in: int, dim_out: int) -> nn.Module:
    return PixelShuffleModule(spec, dim_in, dim_out)


class PixelShuffleModule(nn.Module):
    def __init__(self, spec: PixelShuffle, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        self.linear = nn.Linear(dim_in * spec.ratio**2, dim_out, bias=spec.bias)

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (N / r^2, D_lm)"""
        grids = tuple(self.spec.grid_out(grid) for grid in features.grids)
        return Features(self.linear(merge_blocks(features, self.spec.ratio, self.spec.order)), grids)
