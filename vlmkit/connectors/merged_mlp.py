"""Merged MLP: a norm over every patch, r x r neighbours become one token as wide as a patch, then a 2-layer MLP.

The projector of Mistral Small 3.1 (mistral.ai/news/mistral-small-3-1): RMSNorm -> r x r patches side by side -> Linear back to the
tower's width, without bias -> Linear -> GELU -> Linear. Other than in Qwen2-VL's merger the MLP is as wide as the language model.
Grid (F, H, W) -> (F, H/r, W/r). From 1024 to 5120 channels it has 35,652,608 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vlmkit.activations import Activation, activation
from vlmkit.connectors import connectors
from vlmkit.connectors.blocks import BlockConnector, BlockOrder, merge_blocks
from vlmkit.features import Features
from vlmkit.spec import SpecError


@connectors.register("merged_mlp")
@dataclass(frozen=True, kw_only=True)
class MergedMlp(BlockConnector):
    """RMSNorm -> space to depth -> Linear -> Linear -> activation -> Linear."""

    order: BlockOrder = "c dh dw"
    norm_eps: float = 1e-5
    """Epsilon of the RMSNorm, which stands before patches are merged."""
    activation: Activation = "gelu"
    """Between the last two linear layers."""
    bias: bool = False
    """Of the last two linear layers; the one that merges has none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm_eps <= 0:
            raise SpecError(f"merged_mlp.norm_eps: expected more than 0, got {self.norm_eps}")

    def build(self, dim_in: int, dim_out: int) -> nn.Module:
        return MergedMlpModule(self, dim_in, dim_out)


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
