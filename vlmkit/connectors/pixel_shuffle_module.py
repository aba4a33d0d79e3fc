"""The module of `pixel_shuffle`."""

from __future__ import annotations

from torch import nn

from vlmkit.connectors.blocks import merge_blocks, merged_grid
from vlmkit.connectors.pixel_shuffle import PixelShuffle
from vlmkit.features import Features


def build(spec: PixelShuffle, dim_in: int, dim_out: int) -> nn.Module:
    return PixelShuffleModule(spec, dim_in, dim_out)


class PixelShuffleModule(nn.Module):
    def __init__(self, spec: PixelShuffle, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        merged = dim_in * spec.ratio**2
        if spec.inner is None:
            self.linear = nn.Linear(merged, dim_out, bias=spec.bias)
        else:
            self.inner = spec.inner.build(merged, dim_out)

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (N / r^2, D_lm), or what `inner` makes of it"""
        grids = tuple(merged_grid(self.spec.kind, grid, self.spec.ratio) for grid in features.grids)
        merged = Features(merge_blocks(features, self.spec.ratio, self.spec.order), grids)
        if self.spec.inner is None:
            return merged._replace(tokens=self.linear(merged.tokens))
        out: Features = self.inner(merged)
        return out
