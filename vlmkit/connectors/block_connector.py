"""Descriptions of connectors that lay the r x r neighbouring patches of a view side by side: `blocks.py` does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmkit.connectors.base import Connector
from vlmkit.features import Grid, GridError
from vlmkit.spec import SpecError

BlockOrder = Literal["dh dw c", "c dh dw"]


@dataclass(frozen=True, kw_only=True)
class BlockConnector(Connector):
    """What connectors share that lay blocks of patches side by side: (F, H, W) -> (F, H / ratio, W / ratio)."""

    ratio: int = 2
    """Patches merged along each side, r."""
    order: BlockOrder = "dh dw c"
    """Channel order of a merged token; "c dh dw" makes a linear layer equal to a strided convolution."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratio < 1:
            raise SpecError(f"{self.kind}.ratio: expected 1 or more, got {self.ratio}")

    @property
    def merge(self) -> int:
        return self.ratio

    def grid_out(self, grid: Grid) -> Grid:
        return merged_grid(self.kind, grid, self.ratio)


def merged_grid(name: str, grid: Grid, ratio: int) -> Grid:
    """The grid after `ratio` x `ratio` patches became one. Raises GridError that names the connector."""
    try:
        return grid.divide(ratio)
    except GridError:
        hint = "; drop the class token, it has no neighbours" if grid.prefix else ""
        raise GridError(f"{name} merges {ratio}x{ratio} patches, but the grid is {grid}{hint}") from None
