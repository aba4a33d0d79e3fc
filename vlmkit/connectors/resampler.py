"""Resampler: learned queries on a grid of their own read the features of a view once, and both sides know where they stand.

Qwen-VL's position-aware adapter (Bai et al. 2023, arXiv:2308.12966; `Resampler` and what follows it in the visual.py of Qwen/Qwen-VL):

    keys     K = LayerNorm(W x) + positions of the view's grid        values  V = LayerNorm(W x)
    queries  Q = LayerNorm(q) + positions of the queries' grid        tokens  P LayerNorm(attention(Q, K, V))

256 queries on a grid of 16x16, one layer, no residual. Positions are the sines and cosines of MAE for the grid of the queries; a view of
another grid has these, resampled bicubic. From 1664 to 4096 channels it has 91,791,360 parameters. Grid (F, H, W) -> (F, side, side).
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.features import Grid
from vlmkit.spec import SpecError


@connectors.register("resampler")
@dataclass(frozen=True, kw_only=True)
class Resampler(Connector):
    """Every frame by itself; a kept class token is read with each, and stands nowhere."""

    side: int = 16
    """Queries along each side of their grid."""
    heads: int = 32
    """Of the attention, which is as wide as the language model: Qwen-VL has one for 128 channels."""
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("side", "heads"):
            if getattr(self, name) < 1:
                raise SpecError(f"resampler.{name}: expected 1 or more, got {getattr(self, name)}")
        if self.norm_eps <= 0:
            raise SpecError(f"resampler.norm_eps: expected more than 0, got {self.norm_eps}")

    def grid_out(self, grid: Grid) -> Grid:
        return Grid(grid.frames, self.side, self.side)

    def problems(self, dim_in: int, dim_out: int) -> list[str]:
        found = []
        if dim_out % self.heads:
            found.append(f"connector 'resampler' has {self.heads} heads, into which the language model's {dim_out} channels do not divide")
        if dim_out % 4:
            found.append(f"connector 'resampler' has sines and cosines of rows and columns, but {dim_out} channels are no multiple of 4")
        return found
