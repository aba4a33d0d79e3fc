"""Every picture in rows between a start and an end token, crops that overlap laid side by side again (Molmo, arXiv:2409.17146).

Each row is closed by a token of the text. Of crops that see a margin of their neighbours every token is left out that belongs to one of
these (`Render.kept`). 1 x 2 crops of 3 x 3 tokens with a margin of one, numbered as the connector returns them after the whole image's:

     9 10 11 | 18 19 20              <start> 0 1 2 <col> 3 4 5 <col> 6 7 8 <col> <end>
    12 13 14 | 21 22 23              <start> 9 10 19 20 <col> 12 13 22 23 <col> 15 16 25 26 <col> <end>
    15 16 17 | 24 25 26

Images of the first message open the sequence, as in upstream's olmo/data/model_preprocessor.py (github.com/allenai/molmo).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vlmkit.features import Grid
from vlmkit.layout import layouts
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.laid_out import Turn
from vlmkit.layout.opening import images_of_first_message
from vlmkit.layout.pieces import ImageTokens, Piece, Trusted, Visual
from vlmkit.preprocess.geometry import Render

Parts = list[tuple[range, range]]
"""Rows and columns of the tokens that are kept, of each tile."""


@layouts.register("stitched_rows")
@dataclass(frozen=True, kw_only=True)
class StitchedRows(TokenLayout):
    """Views that cannot be laid side by side are pictures of their own: of several grids or frames, or with parts that are no whole number
    of tokens. A kept class token stands before the rows."""

    start: str
    """Special token before a picture."""
    end: str
    """Special token after it."""
    row_end: str
    """Special token after each row."""

    partial: ClassVar[bool] = True

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        views, start = iter(image.grids), 0
        pieces: list[Piece] = []
        for render in image.plan.renders:
            grids = [next(views) for _ in render.tiles]
            for tiles, across, parts in _pictures(render, grids):
                pieces += [Trusted(self.start), *self._rows(tiles, across, parts, start), Trusted(self.end)]
                start += sum(grid.tokens for grid in tiles)
        return tuple(pieces)

    def opening(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        return images_of_first_message(turns)

    def required_specials(self) -> tuple[str, ...]:
        return (*super().required_specials(), self.start, self.end, self.row_end)

    def _rows(self, grids: Sequence[Grid], across: int, parts: Parts, start: int) -> Iterator[Piece]:
        """The tiles of one picture, `across` of them in a row, whose tokens begin at `start`."""
        tokens, prefix, width = grids[0].tokens, grids[0].prefix, grids[0].columns
        if prefix:
            yield from (Visual(start + tile * tokens, prefix) for tile in range(len(grids)))
        for first in range(0, len(grids), across):
            for row in parts[first][0]:
                for tile in range(first, first + across):
                    columns = parts[tile][1]
                    yield Visual(start + tile * tokens + prefix + row * width + columns.start, len(columns))
                yield Trusted(self.row_end)


def _pictures(render: Render, grids: list[Grid]) -> Iterator[tuple[list[Grid], int, Parts]]:
    """The tiles of each picture of a render, how many stand side by side, and what is kept of them."""
    down, across = render.tile_grid
    parts = [_part(render, number, grid) for number, grid in enumerate(grids)]
    found = [part for part in parts if part is not None]
    if len(set(grids)) == 1 and grids[0].frames == 1 and len(grids) == down * across and len(found) == len(grids):
        yield grids, across, found
        return
    for grid in grids:
        yield [grid], 1, [(range(grid.frames * grid.rows), range(grid.columns))]


def _part(render: Render, number: int, grid: Grid) -> tuple[range, range] | None:
    """Rows and columns of a tile's tokens that are its own; None where its part is no whole number of them."""
    tile = render.tiles[number]
    own = render.kept[number] if render.kept else tile
    edges = (
        ((own.top - tile.top) * grid.rows, tile.height),
        ((own.top - tile.top + own.height) * grid.rows, tile.height),
        ((own.left - tile.left) * grid.columns, tile.width),
        ((own.left - tile.left + own.width) * grid.columns, tile.width),
    )
    if any(place % side for place, side in edges):
        return None
    top, bottom, left, right = (place // side for place, side in edges)
    return range(top, bottom), range(left, right)
