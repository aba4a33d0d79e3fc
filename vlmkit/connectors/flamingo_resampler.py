"""Flamingo's resampler: learned latents read the features of a view in its own width, layer by layer.

Flamingo (Alayrac et al. 2022, arXiv:2204.14198), here in the form of Idefics (Laurencon et al. 2023, arXiv:2306.16527). In every layer
the latents attend to features and latents alike, each behind a LayerNorm of its own, queries and keys normalised head by head; an MLP
with ReLU follows. Features keep the tower's width, in which cross-attention reads them; where another one is asked for, a linear
layer takes them there. Grid (F, H, W) -> (F, 1, latents), a kept class token read with each frame. Within 1280 channels and with the
numbers of Idefics, the defaults, it has 125,961,984 parameters. `perceiver` is what Idefics2 made of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.features import Grid
from vlmkit.spec import SpecError


@connectors.register("flamingo_resampler")
@dataclass(frozen=True, kw_only=True)
class FlamingoResampler(Connector):
    """Every frame by itself."""

    latents: int = 64
    """Tokens of a frame, whatever its grid."""
    depth: int = 6
    """Layers."""
    heads: int = 16
    head_dim: int = 96
    qk_norm: bool = True
    """LayerNorm over the channels of each head of queries and keys."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latents", "depth", "heads", "head_dim"):
            if getattr(self, name) < 1:
                raise SpecError(f"flamingo_resampler.{name}: expected 1 or more, got {getattr(self, name)}")

    def grid_out(self, *grids: Grid) -> Grid:
        (grid,) = grids
        return Grid(grid.frames, 1, self.latents)
