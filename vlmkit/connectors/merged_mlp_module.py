"""The module of `merged_mlp`: norm, merge, MLP."""

from __future__ import annotations

from torch import nn

from vlmkit.activations import activation
from vlmkit.connectors.blocks import merge_blocks
from vlmkit.connectors.merged_mlp import MergedMlp
from vlmkit.features import Features


def build(spec: MergedMlp, dim_in: int, dim_out: int) -> nn.Module:
    return MergedMlpModule(spec, dim_in, dim_out)


class MergedMlpModule(nn.Module):
    def __init__(self, spec: MergedMlp, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        self.norm = nn.RMSNorm(dim_in, eps=spec.norm_eps)
        self.merge = nn.Linear(dim_in * spec.ratio**2, dim_in, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(dim_in, dim_out, bias=spec.bias),
            activation(spec.activation),
            nn.Linear(dim_out, dim_out, bias=spec.bias),
        )

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (N / r^2, D_lm)"""
        grids = tuple(self.spec.grid_out(grid) for grid in features.grids)
        normed = features._replace(tokens=self.norm(features.tokens))
        return Features(self.mlp(self.merge(merge_blocks(normed, self.spec.ratio, self.spec.order))), grids)
