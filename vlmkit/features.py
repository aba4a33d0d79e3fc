"""What travels between encoder, connector and language model: tokens, and the grids that they stand on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

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


class View(NamedTuple):
    """What a batch says of one view beside its pixels: its grid of patches, and where it comes from."""

    grid: Grid
    image: int = 0
    """Number of its image, or its clip, in the batch."""
    row: int = 0
    """Place of the tile in its image, counted from 0; -1 for a picture of the whole image beside its tiles."""
    column: int = 0
    milliseconds: int = 0
    """Where in its clip it begins."""
    above: int = 0
    """Pixels of it above, left of, below and right of the image: padding, up to all of it."""
    left: int = 0
    below: int = 0
    right: int = 0


class Features(NamedTuple):
    """Tokens of all views of a batch, one view after the other.

    tokens: (N, D), N the sum of grids' tokens. grids: one a view, in order. A tuple, and everything else that travels between modules is
    one as well: the hooks by which ZeRO-3, FSDP and DDP follow tensors from module to module walk tuples, and see nothing inside of other
    classes.
    """

    tokens: Tensor
    grids: tuple[Grid, ...]

    def checked(self) -> Features:
        """These features. Raises GridError where tokens and grids do not add up."""
        expected = sum(grid.tokens for grid in self.grids)
        if len(self.tokens) != expected:
            raise GridError(f"{len(self.tokens)} tokens do not stand on {len(self.grids)} grid(s) of {expected} tokens together")
        return self

    def views(self) -> tuple[Tensor, ...]:
        """One (tokens, D) tensor a view. Raises GridError where tokens and grids do not add up."""
        return tuple(self.checked().tokens.split([grid.tokens for grid in self.grids]))  # type: ignore[no-untyped-call]


def tiles_together(views: Sequence[View]) -> tuple[range, ...]:
    """Which views are tiles of one picture, by their numbers: tiles come in raster order, so each that is a first tile, or a picture of
    a whole image (row and column -1), begins another one."""
    begins = [number for number, view in enumerate(views) if view.row <= 0 and view.column <= 0]
    if views and begins[:1] != [0]:
        raise GridError(
            f"the first view of a batch is the tile at row {views[0].row} and column {views[0].column} of its image, not the first"
        )
    return tuple(range(begin, end) for begin, end in zip(begins, [*begins[1:], len(views)], strict=True))
