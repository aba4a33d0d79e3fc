"""What travels between encoder, connector and language model: tokens, and the grids that they stand on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class GridError(ValueError):
    """A grid of patches that a part cannot take, with the numbers."""


@dataclass(frozen=True)
class Grid:
    """Tokens of one view: frames x rows x columns in raster order, after `prefix` tokens that stand on no grid.

    A kept class token is a prefix of 1. Query tokens of a resampler are a grid of one row.
    """

    frames: int
    rows: int
    columns: int
    prefix: int = 0

    @property
    def tokens(self) -> int:
        """All tokens of the view; Grid(1, 3, 4).tokens is 12."""
        return self.prefix + self.frames * self.rows * self.columns

    def divide(self, ratio: int) -> Grid:
        """The grid after ratio x ratio neighbours became one: Grid(1, 18, 24).divide(2) is Grid(1, 9, 12).

        Raises GridError where rows or columns do not divide, or where a prefix token has no neighbours.
        """
        if self.rows % ratio or self.columns % ratio:
            raise GridError(f"cannot merge {ratio}x{ratio} patches of a {self.rows}x{self.columns} grid")
        if self.prefix:
            raise GridError(
                f"cannot merge {ratio}x{ratio} patches beside {self.prefix} token(s) that stand on no grid; drop the class token"
            )
        return replace(self, rows=self.rows // ratio, columns=self.columns // ratio)

    def __str__(self) -> str:
        frames = f"{self.frames}x" if self.frames != 1 else ""
        return f"{frames}{self.rows}x{self.columns}" + (f" + {self.prefix}" if self.prefix else "")


@dataclass(frozen=True)
class Features:
    """Tokens of all views of a batch, one view after the other.

    tokens: (N, D), N the sum of grids' tokens. grids: one a view, in order.
    """

    tokens: Tensor
    grids: tuple[Grid, ...]

    def __post_init__(self) -> None:
        expected = sum(grid.tokens for grid in self.grids)
        if len(self.tokens) != expected:
            raise GridError(f"{len(self.tokens)} tokens do not stand on {len(self.grids)} grid(s) of {expected} tokens together")

    def views(self) -> tuple[Tensor, ...]:
        """One (tokens, D) tensor a view."""
        return tuple(self.tokens.split([grid.tokens for grid in self.grids]))  # type: ignore[no-untyped-call]
