"""Sequence fold: `fold` tokens that follow one another in raster order become one, side by side, then an MLP.

OmniVLM (Nexa AI 2024, arXiv:2412.11475) folds nine of 27x27 patches, so that 729 tokens become 81: each is a third of a row of the image,
27 of 9, and no 3x3 window as a pixel shuffle has. Grid (F, H, W) -> (F, H, W/fold): a token never spans two rows. From 1152 channels by
way of 4096 to 896 it has 46,142,336 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vlmkit.activations import Activation
from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.features import Grid, GridError
from vlmkit.spec import SpecError


@connectors.register("sequence_fold")
@dataclass(frozen=True, kw_only=True)
class SequenceFold(Connector):
    """`fold` neighbours of a row side by side -> Linear -> activation -> Linear."""

    fold: int = 2
    """Tokens that become one."""
    hidden: int | None = None
    """Width between the linear layers; None is the language model's."""
    activation: Activation = "gelu_tanh"
    """Between them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fold < 1:
            raise SpecError(f"sequence_fold.fold: expected 1 or more, got {self.fold}")
        if self.hidden is not None and self.hidden < 1:
            raise SpecError(f"sequence_fold.hidden: expected 1 or more channels, got {self.hidden}")

    @property
    def merge(self) -> int:
        return self.fold

    def grid_out(self, grid: Grid) -> Grid:
        if grid.columns % self.fold or grid.prefix:
            hint = "; drop the class token, it has no neighbours" if grid.prefix else ""
            raise GridError(f"sequence_fold merges {self.fold} patches of a row, but the grid is {grid}{hint}")
        return replace(grid, columns=grid.columns // self.fold)
