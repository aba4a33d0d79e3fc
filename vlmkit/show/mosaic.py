"""Views as a picture: enlarged by a whole factor, with lines between patches, so that every pixel is there and none is covered.

Views are drawn from the uint8 patches that the encoder gets. What the layout leaves out of the sequence (visual tokens over padding,
say) is faded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmkit.features import Grid
from vlmkit.page import ACCENT, FAINT, Colour
from vlmkit.preprocess.geometry import Render
from vlmkit.show.sight import Pixels, Sight, placed

FADED: Colour = (191, 191, 191)
"""What black, the usual padding, fades to."""


@dataclass(frozen=True)
class Lines:
    """Widths in pixels of the lines between patches and between visual tokens."""

    patch: int
    token: int

    @classmethod
    def between(cls, side: int) -> Lines:
        """Lines for patches that are drawn `side` pixels wide."""
        return cls(max(1, side // 28), min(5, max(2, side // 9)))


def boards(sight: Sight, scale: int, lines: Lines) -> list[Pixels]:
    """A picture of each render of the plan: its views, enlarged by a whole factor, side by side as they were cut."""
    patch, merged = sight.architecture.encoder.patch_size, sight.tokens.grids
    kept = np.split(placed(sight.architecture, sight.tokens), np.cumsum([grid.tokens for grid in merged])[:-1])
    mosaics = iter(
        mosaic(view, patches, covered(patches, tokens), patch, scale, lines, mask[tokens.prefix :].reshape(-1, tokens.columns))
        for view, patches, tokens, mask in zip(sight.views, sight.patches, merged, kept, strict=True)
    )
    return [_lay_tiles(part, [next(mosaics) for _ in part.tiles], gap=4 * lines.token) for part in sight.plan.renders]


def covered(patches: Grid, tokens: Grid) -> tuple[int, int] | None:
    """Rows and columns of patches that one visual token stands for; None where tokens stand on no grid of patches, as
    the queries of a resampler (a grid of one row) do."""
    if patches.rows % tokens.rows or patches.columns % tokens.columns:
        return None
    rows, columns = patches.rows // tokens.rows, patches.columns // tokens.columns
    return (rows, columns) if tokens.rows > 1 or rows in (1, columns) else None


def mosaic(
    view: Pixels,
    grid: Grid,
    token: tuple[int, int] | None,
    patch: int,
    scale: int,
    lines: Lines,
    kept: NDArray[np.bool_] | None = None,
) -> Pixels:
    """The view enlarged by a whole factor, its patches moved apart by lines: wide ones around visual tokens, thin ones
    within. Nothing of the view is covered. Tokens that are not `kept` (rows, columns) are faded, with no wide lines."""
    vertical = _spread(grid.rows, token[0] if token else 0, patch * scale, lines)
    horizontal = _spread(grid.columns, token[1] if token else 0, patch * scale, lines)
    pixels, inner = view.repeat(scale, axis=0).repeat(scale, axis=1), np.ix_(vertical.places, horizontal.places)
    board = np.full((vertical.length, horizontal.length, 3), FAINT, np.uint8)
    board[vertical.wide] = ACCENT
    board[:, horizontal.wide] = ACCENT
    board[inner] = pixels
    if kept is None or token is None or kept.all():
        return board
    without = np.full_like(board, FAINT)
    without[inner] = faded(pixels)
    for row, column in np.argwhere(kept):
        cell = vertical.cells[row], horizontal.cells[column]
        without[cell] = board[cell]
    return without


def faded(pixels: Pixels) -> Pixels:
    return (pixels // 4 + FADED[0]).astype(np.uint8)


class _Side(NamedTuple):
    """Along one side of a mosaic."""

    places: NDArray[np.int64]
    """Where each pixel of the patches goes."""
    length: int
    wide: NDArray[np.int64]
    """What wide lines take of it."""
    cells: list[slice]
    """What each visual token takes of it, with the lines on both of its edges."""


def _spread(count: int, together: int, side: int, lines: Lines) -> _Side:
    """`count` patches, of which so many belong together to a visual token; 0 where tokens stand on no grid."""
    before = [lines.token if together and number % together == 0 else lines.patch for number in range(count + 1)]
    before[0] = before[-1] = lines.token
    starts = np.cumsum(before)[:-1] + side * np.arange(count)
    places = (starts[:, None] + np.arange(side)).ravel()
    length = int(sum(before) + side * count)
    line = np.ones(length, bool)
    line[places] = False
    edges = [0, *(starts + side)]
    wide = [np.arange(edge, edge + width) for edge, width in zip(edges, before, strict=True) if together and width == lines.token]
    ends = range(together, count + 1, together) if together else ()
    cells = [slice(edges[end - together], edges[end] + before[end]) for end in ends]
    return _Side(places, length, np.concatenate(wide) if wide else np.arange(0), cells)


def _lay_tiles(part: Render, mosaics: list[Pixels], gap: int) -> Pixels:
    """Tiles moved apart, in the rows and columns in which they lie on the canvas; overlapping ones are each drawn whole."""
    tops, lefts = sorted({tile.top for tile in part.tiles}), sorted({tile.left for tile in part.tiles})
    cells = [(tops.index(tile.top), lefts.index(tile.left)) for tile in part.tiles]
    if len(set(cells)) < len(cells):  # two tiles begin at the same pixel: one after the other
        cells = [(0, number) for number in range(len(mosaics))]
    heights, widths = [0] * (max(row for row, _ in cells) + 1), [0] * (max(column for _, column in cells) + 1)
    for (row, column), picture in zip(cells, mosaics, strict=True):
        heights[row], widths[column] = max(heights[row], picture.shape[0]), max(widths[column], picture.shape[1])
    board = np.full((sum(heights) + gap * (len(heights) - 1), sum(widths) + gap * (len(widths) - 1), 3), 255, np.uint8)
    for (row, column), picture in zip(cells, mosaics, strict=True):
        top, left = sum(heights[:row]) + gap * row, sum(widths[:column]) + gap * column
        board[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return board
