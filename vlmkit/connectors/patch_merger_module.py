"""The module of `patch_merger`: norm, merge, two linear layers."""

from __future__ import annotations

from torch import nn

from vlmkit.activations import activation
from vlmkit.connectors.blocks import merge_blocks
from vlmkit.connectors.patch_merger import PatchMerger
from vlmkit.features import Features


def build(spec: PatchMerger, dim_in: int, dim_out: int) -> nn.Module:
    return PatchMergerModule(spec, dim_in, dim_out)


class PatchMergerModule(nn.Module):
    def __init__(self, spec: PatchMerger, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        merged = dim_in * spec.ratio**2
        self.norm = nn.LayerNorm(dim_in, eps=spec.norm_eps)
        self.mlp = nn.Sequential(nn.Linear(merged, merged), activation(spec.activation), nn.Linear(merged, dim_out))

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (N / r^2, D_lm)"""
        grids = tuple(self.spec.grid_out(grid) for grid in features.grids)
        normed = features._replace(tokens=self.norm(features.tokens))
        return Features(self.mlp(merge_blocks(normed, self.spec.ratio, self.spec.order)), grids)
