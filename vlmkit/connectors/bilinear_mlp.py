"""Bilinear shrinking: the grid is made r times smaller along each side, then an MLP, token by token.

VideoLLaMA 3 (Zhang et al. 2025, arXiv:2501.13106) shrinks frames of a film by 2 and pictures not at all; a token keeps the encoder's
channels, where a pixel shuffle would multiply them. Grid (1, H, W) -> (1, H/ratio, W/ratio); of a film (F, H, W) ->
(F, H/ratio_clips, W/ratio_clips).

What is a film is read off the grid: more than one frame. So a film of one frame comes as two, of which the second has no place
(`least_frames`).
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.activations import Activation
from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.connectors.block_connector import merged_grid
from vlmkit.connectors.mlp import Mlp
from vlmkit.features import Grid
from vlmkit.spec import SpecError


@connectors.register("bilinear_mlp")
@dataclass(frozen=True, kw_only=True)
class BilinearMlp(Connector):
    """Pixel centres are aligned (align_corners=False), without antialias: a ratio of 2 is the mean of four neighbours."""

    ratio: int = 1
    """Patches of a picture that one token stands for, along each side."""
    ratio_clips: int | None = None
    """The same of a film; None: as of a picture."""
    depth: int = 2
    """Linear layers of the MLP."""
    activation: Activation = "gelu"
    """Between two of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ratio", "merge_clips"):
            if getattr(self, name) < 1:
                field = name.replace("merge", "ratio")
                raise SpecError(f"bilinear_mlp.{field}: expected 1 or more, got {getattr(self, name)}")
        _ = self._mlp

    @property
    def merge(self) -> int:
        return self.ratio

    @property
    def merge_clips(self) -> int:
        return self.ratio if self.ratio_clips is None else self.ratio_clips

    @property
    def least_frames(self) -> int:
        return 1 if self.merge_clips == self.ratio else 2

    def ratio_of(self, grid: Grid) -> int:
        """By how much this grid is shrunk."""
        return self.ratio if grid.frames == 1 else self.merge_clips

    def grid_out(self, grid: Grid) -> Grid:
        return merged_grid(self.kind, grid, self.ratio_of(grid))

    @property
    def _mlp(self) -> Mlp:
        return Mlp(depth=self.depth, activation=self.activation)
