"""Rows of visual tokens, each closed by a token of the text (Pixtral, arXiv:2410.07073; Fuyu, adept.ai/blog/fuyu-8b).

The language model learns an image's shape from where its lines end. A 2 x 3 grid with `row_end` [IMG_BREAK] and `image_end`
[IMG_END], as Pixtral has them; without an `image_end`, as in Fuyu, the last row closes like every other:

    [IMG] [IMG] [IMG] [IMG_BREAK] [IMG] [IMG] [IMG] [IMG_END]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vlmkit.layout import layouts
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import ImageTokens, Piece, Trusted, Visual


@layouts.register("rows")
@dataclass(frozen=True, kw_only=True)
class Rows(TokenLayout):
    """Views stand one after the other, frames too; a kept class token begins the first row of its view."""

    row_end: str
    """Special token after each row."""
    image_end: str | None = None
    """Special token in its place after the last row of an image."""

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        rows = list(row_lengths(image))
        ends = [self.row_end] * (len(rows) - 1) + [self.image_end or self.row_end]
        starts = [sum(rows[:number]) for number in range(len(rows))]
        return tuple(piece for start, row, end in zip(starts, rows, ends, strict=True) for piece in (Visual(start, row), Trusted(end)))

    def required_specials(self) -> tuple[str, ...]:
        return (*super().required_specials(), self.row_end, *([self.image_end] if self.image_end else []))


def row_lengths(image: ImageTokens) -> Iterator[int]:
    """Visual tokens of each row, view by view."""
    for grid in image.grids:
        yield grid.prefix + grid.columns
        yield from [grid.columns] * (grid.frames * grid.rows - 1)
