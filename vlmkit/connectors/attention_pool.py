"""Attention pooling: r x r neighbouring patches are read once by their own mean, then a gated MLP.

Molmo's connector (Deitke et al. 2024, arXiv:2409.17146), after MolmoVisionBackbone of olmo/model.py (github.com/allenai/molmo): multi-head
attention in which the mean of a window is the query and its patches are keys and values, all projections with biases, no norm and no
residual; then SwiGLU without biases. Grid (F, H, W) -> (F, H/r, W/r). From two layers of CLIP L/14, 2048 channels, by way of `width` 1024
and `hidden` 18944 to Qwen2-7B's 3584 it has 114,036,736 parameters. Weights have upstream's names.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.activations import Activation
from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.connectors.block_connector import merged_grid
from vlmkit.features import Grid
from vlmkit.spec import SpecError


@connectors.register("attention_pool")
@dataclass(frozen=True, kw_only=True)
class AttentionPool(Connector):
    """Multi-head attention within windows of r x r patches -> gated MLP."""

    ratio: int = 2
    """Patches that one token reads along each side, r."""
    heads: int = 16
    width: int | None = None
    """Channels of queries, keys, values and what the attention gives; None: as many as the features have."""
    hidden: int | None = None
    """Channels inside the gated MLP; None: 4 times the language model's width."""
    activation: Activation = "silu"
    """Of the gate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ratio", "heads", "width", "hidden"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SpecError(f"attention_pool.{name}: expected 1 or more, got {value}")
        if self.width is not None and self.width % self.heads:
            raise SpecError(f"attention_pool.heads: width {self.width} does not divide into {self.heads} heads")

    @property
    def merge(self) -> int:
        return self.ratio

    def grid_out(self, grid: Grid) -> Grid:
        return merged_grid(self.kind, grid, self.ratio)

    def problems(self, dim_in: int, dim_out: int) -> list[str]:
        if self.width is not None or dim_in % self.heads == 0:
            return []
        return [f"connector 'attention_pool' has {self.heads} heads, into which the {dim_in} channels of the encoder do not divide"]
