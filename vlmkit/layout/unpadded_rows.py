"""Tiles laid side by side again, and a learned line break after each of their rows (LLaVA-1.6, Liu et al. 2024,
llava-vl.github.io/blog/2024-01-30-llava-next; MiniMax-VL-01, arXiv:2501.08313).

The view of the whole image comes first, as it is. The tiles then form one picture, of which the rows or columns that only
cover padding are left out. 2 x 2 tiles of 2 x 2 tokens, numbered as the connector returns them after the whole image's 0 to 3,
for an image twice as wide as high:

     4  5 |  8  9                0 1 2 3
     6  7 | 10 11                6  7 10 11 newline
    ------+------
    12 13 | 16 17               12 13 16 17 newline
    14 15 | 18 19
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vlmkit.features import Grid
from vlmkit.layout import layouts
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import ImageTokens, Learned, Piece, Visual
from vlmkit.preprocess.geometry import ImagePlan, Render
from vlmkit.preprocess.policies.anyres import unpadded


@layouts.register("unpadded_rows")
@dataclass(frozen=True, kw_only=True)
class UnpaddedRows(TokenLayout):
    """Where a policy gives one picture only, it has rows too. A kept class token stands before the rows."""

    learned: ClassVar[tuple[str, ...]] = ("newline",)
    partial: ClassVar[bool] = True

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        return tuple(_pieces(image))


def _pieces(image: ImageTokens) -> Iterator[Piece]:
    start, views, plan = 0, iter(image.grids), image.plan
    for number, render in enumerate(plan.renders):
        grids = [next(views) for _ in render.tiles]
        if number == 0 and len(grids) == 1 and len(plan.renders) > 1:
            yield Visual(0, grids[0].tokens)
        else:
            yield from _rows(plan, render, grids, start)
        start += sum(grid.tokens for grid in grids)


def _rows(plan: ImagePlan, render: Render, grids: list[Grid], start: int) -> Iterator[Piece]:
    """Pieces of the tiles of one picture, whose tokens begin at `start`. Tiles that cannot be laid side by side (of several
    grids, or some on top of others) are pictures of their own."""
    down, across = render.tile_grid
    if len(set(grids)) > 1 or len(grids) != down * across:
        for grid in grids:
            yield from _joined(grid, 1, 1, start, range(grid.frames * grid.rows), range(grid.columns))
            start += grid.tokens
        return
    grid = grids[0]
    rows, columns = shown(plan, render, down * grid.frames * grid.rows, across * grid.columns)
    yield from _joined(grid, down, across, start, rows, columns)


def _joined(grid: Grid, down: int, across: int, start: int, rows: range, columns: range) -> Iterator[Piece]:
    """down x across tiles of one grid, of which these rows and columns are shown."""
    if grid.prefix:
        yield from (Visual(start + tile * grid.tokens, grid.prefix) for tile in range(down * across))
    for row in rows:
        tile_row, inner = divmod(row, grid.frames * grid.rows)
        for tile_column in range(across):
            left = tile_column * grid.columns
            first, end = max(columns.start, left) - left, min(columns.stop, left + grid.columns) - left
            if first < end:
                tile = start + (tile_row * across + tile_column) * grid.tokens + grid.prefix
                yield Visual(tile + inner * grid.columns + first, end - first)
        yield Learned("newline")


def shown(plan: ImagePlan, render: Render, rows: int, columns: int) -> tuple[range, range]:
    """Rows and columns of a picture's tokens that stay: those that LLaVA-1.6 leaves where the image stands in the middle of a
    larger canvas and another view has it whole, everywhere else all."""
    beside = (render.canvas.height - render.resize.height, render.canvas.width - render.resize.width)
    in_the_middle = (render.top, render.left) == (beside[0] // 2, beside[1] // 2)
    if len(plan.renders) > 1 and max(beside) > 0 and in_the_middle:
        return unpadded(plan.source, rows, columns)
    return range(rows), range(columns)
