"""Patch merger: a norm over every patch, r x r neighbours become one token, then two linear layers.

The merger of Qwen2-VL (Wang et al. 2024, arXiv:2409.12191): LayerNorm -> 2x2 -> Linear -> GELU -> Linear, the first layer as wide as
the merged token. Grid (F, H, W) -> (F, H/r, W/r). From 1280 to 3584 channels it has 44,575,744 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vlmkit.activations import Activation, activation
from vlmkit.connectors import connectors
from vlmkit.connectors.blocks import BlockConnector, merge_blocks
from vlmkit.features import Features
from vlmkit.spec import SpecError


@connectors.register("patch_merger")
@dataclass(frozen=True, kw_only=True)
class PatchMerger(BlockConnector):
    """LayerNorm -> space to depth -> Linear -> activation -> Linear."""

    norm_eps: float = 1e-6
    """Epsilon of the LayerNorm, which stands before patches are merged."""
    activation: Activation = "gelu"
    """Between the two linear layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm_eps <= 0:
            raise SpecError(f"patch_merger.norm_eps: expected more than 0, got {self.norm_eps}")

    def build(self, dim_in: int, dim_out: int) -> nn.Module:
        return PatchMergerModule(self, dim_in, dim_out)


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
