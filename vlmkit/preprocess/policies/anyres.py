"""AnyRes: the whole image squashed into one view, then the image on the best of several grids of tiles.

LLaVA-1.6 / LLaVA-NeXT (Liu et al. 2024, llava-vl.github.io/blog/2024-01-30-llava-next). Among the grids, the one that
keeps the most pixels of the image wins, then the smallest, then the first: the image scaled to fit is counted with sides
rounded down, and not above its own pixels. It is resized to fill the winner along one side, the other
side rounded up, and placed in the middle, the odd pixel below or on the right. Scales are floating point, as published.
For 480 x 640 and tiles of 336 the grid is 2 x 2: the picture is 504 x 672 at row 84 of 672 x 672, and five views are cut.

A layout that leaves out padded rows or columns of the joined tiles asks `unpadded`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlmkit.preprocess.geometry import Box, ImagePlan, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import Colour, SquarePolicy, check_colour
from vlmkit.spec import SpecError

LLAVA_GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
"""The grids of LLaVA-1.6, which names them by their pixels: 336 x 672, 672 x 336 and so on."""


@policies.register("anyres")
@dataclass(frozen=True, kw_only=True)
class AnyRes(SquarePolicy):
    """The squashed image first, then the tiles in raster order."""

    grids: tuple[tuple[int, int], ...] = LLAVA_GRIDS
    """Rows and columns of tiles to choose from."""
    fill: Colour = (0, 0, 0)
    """RGB beside the image on the tiles, 0 to 255."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_colour("anyres.fill", self.fill)
        if not self.grids or any(min(grid) < 1 for grid in self.grids):
            raise SpecError(f"anyres.grids: expected at least one grid of 1x1 tiles or more, got {self.grids}")

    def plan(self, size: Size) -> ImagePlan:
        square = Size(self.size, self.size)
        rows, columns = best_grid(self.grids, self.size, size)
        tiles = centred(size, Size(rows * self.size, columns * self.size), self.squares(rows, columns), self.fill)
        return ImagePlan(source=size, renders=(Render(resize=square, canvas=square, tiles=self.squares()), tiles))


def best_grid(grids: tuple[tuple[int, int], ...], side: int, size: Size) -> tuple[int, int]:
    """Rows and columns of the tiles of so many pixels that keep the most of an image of this size."""

    def kept(grid: tuple[int, int]) -> int:
        height, width = grid[0] * side, grid[1] * side
        scale = min(width / size.width, height / size.height)
        return min(int(size.width * scale) * int(size.height * scale), size.pixels)

    return max(grids, key=lambda grid: (kept(grid), -grid[0] * grid[1]))


def centred(size: Size, canvas: Size, tiles: tuple[Box, ...], fill: Colour) -> Render:
    """An image of this size as large as the canvas holds it, in its middle, and the tiles that are cut from it."""
    across, down = canvas.width / size.width, canvas.height / size.height
    if across < down:
        picture = Size(min(math.ceil(size.height * across), canvas.height), canvas.width)
    else:
        picture = Size(canvas.height, min(math.ceil(size.width * down), canvas.width))
    top, left = (canvas.height - picture.height) // 2, (canvas.width - picture.width) // 2
    return Render(resize=picture, canvas=canvas, tiles=tiles, top=top, left=left, fill=fill)


def unpadded(source: Size, rows: int, columns: int) -> tuple[range, range]:
    """Rows and columns of the joined tiles' tokens that show the image: LLaVA-1.6's unpadding.

    rows, columns: of the tokens of all tiles laid side by side. What is left out is computed from the image's shape, not
    from the pixels that were padded, rounded so that as much goes at either end: for 480 x 640 and 48 x 48 tokens rows 6
    to 41 and every column stay. Of a very thin image nothing may be left: range(24, 24).
    """
    if source.width / source.height > columns / rows:
        height = int(round(source.height * (columns / source.width), 7))
        cut = (rows - height) // 2
        return range(cut, rows - cut), range(columns)
    width = int(round(source.width * (rows / source.height), 7))
    cut = (columns - width) // 2
    return range(rows), range(cut, columns - cut)
