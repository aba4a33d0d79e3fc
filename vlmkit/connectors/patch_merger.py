"""Patch merger: a norm over every patch, r x r neighbours become one token, then two linear layers.

The merger of Qwen2-VL (Wang et al. 2024, arXiv:2409.12191): LayerNorm -> 2x2 -> Linear -> GELU -> Linear, the first layer as wide as
the merged token. Grid (F, H, W) -> (F, H/r, W/r). From 1280 to 3584 channels it has 44,575,744 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.connectors.blocks import BlockOrder, merge_blocks, merged_grid
from vlmkit.connectors.layers import Activation, activation
from vlmkit.features import Features, Grid
from vlmkit.spec import SpecError


@connectors.register("patch_merger")
@dataclass(frozen=True, kw_only=True)
class PatchMerger(Connector):
    """LayerNorm -> space to depth -> Linear -> activation -> Linear."""

    ratio: int = 2
    """Patches merged along each side, r."""
    order: BlockOrder = "dh dw c"
    """Channel order of a merged token."""
    norm_eps: float = 1e-6
    """Epsilon of the LayerNorm, which stands before patches are merged."""
    activation: Activation = "gelu"
    """Between the two linear layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio < 1:
            raise SpecError(f"patch_merger.ratio: expected 1 or more, got {self.ratio}")
        if self.norm_eps <= 0:
            raise SpecError(f"patch_merger.norm_eps: expected more than 0, got {self.norm_eps}")

    @property
    def merge(self) -> int:
        return self.ratio

    def grid_out(self, grid: Grid) -> Grid:
        return merged_grid(self.kind, grid, self.ratio)

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
