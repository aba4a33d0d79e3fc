"""Perceiver resampler: a fixed number of learned latents read the features of a view, however many those are.

Perceiver (Jaegle et al. 2021, arXiv:2103.03206), between a tower and a language model in Flamingo (Alayrac et al. 2022,
arXiv:2204.14198) and here in the form of Idefics2 (Laurencon et al. 2024, arXiv:2405.02246): a gated MLP takes the features to the
language model's width; in every layer the latents attend to features and latents alike, several heads sharing keys and values,
with RMSNorm before and a gated MLP behind. Grid (F, H, W) -> (F, 1, latents). From 1152 to 4096 channels, with `hidden` 14336, it
has 743,219,200 parameters. Weights have the names of transformers' Idefics2PerceiverResampler.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.activations import Activation
from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.features import Grid
from vlmkit.spec import SpecError


@connectors.register("perceiver")
@dataclass(frozen=True, kw_only=True)
class Perceiver(Connector):
    """Every frame by itself; a kept class token is read with each."""

    latents: int = 64
    """Tokens of a frame, whatever its grid."""
    depth: int = 3
    """Layers."""
    heads: int = 16
    kv_heads: int = 4
    """Heads of keys and values; each serves heads / kv_heads heads of queries."""
    head_dim: int = 96
    hidden: int | None = None
    """Channels inside the gated MLP before the layers; None is 4 times the language model's width, as inside the layers."""
    activation: Activation = "silu"
    """Of the gated MLPs."""
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latents", "depth", "heads", "kv_heads", "head_dim", "hidden"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SpecError(f"perceiver.{name}: expected 1 or more, got {value}")
        if self.heads % self.kv_heads:
            raise SpecError(f"perceiver.kv_heads: {self.heads} heads do not share {self.kv_heads} heads of keys and values evenly")
        if self.norm_eps <= 0:
            raise SpecError(f"perceiver.norm_eps: expected more than 0, got {self.norm_eps}")

    def grid_out(self, grid: Grid) -> Grid:
        return Grid(grid.frames, 1, self.latents)
