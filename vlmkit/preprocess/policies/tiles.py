"""Aspect-matched tiles: of all grids of so many tiles the one whose shape is nearest to the image's; the image is stretched to it and
cut, and the whole image, squashed into one more view, comes last.

InternVL 1.5 (Chen et al. 2024, arXiv:2404.16821, section 3.3) with up to 12 tiles of 448, NVLM (Dai et al. 2024, arXiv:2409.11402,
section 4.1) with up to 6. Shapes are compared as width / height in floating point. Among grids that are equally near the first one,
ordered by tiles and then by columns, gives way to a later one as long as the image has more than half of the later one's pixels. So
448 x 448 is one tile and no 2 x 2 of them, and 480 x 640 under 6 tiles is 2 x 3: 896 x 1344, six tiles and the whole.

Upstream orders grids of equally many tiles by the hash of a pair; transformers' GotOcr2ImageProcessor by columns, as here. Where one tile
is allowed no image tells the two apart (every tie between shapes was tried up to 40 tiles).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from vlmkit.preprocess.geometry import ImagePlan, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import SquarePolicy
from vlmkit.spec import SpecError

MOST = 1000
"""Tiles that a policy may allow: every way to arrange them is listed."""


@policies.register("tiles")
@dataclass(frozen=True, kw_only=True)
class Tiles(SquarePolicy):
    """Tiles in raster order, then the whole image; an image of one tile is that one view."""

    least: int = 1
    """Tiles of an image at least, the whole image beside them left out."""
    most: int = 12
    """The same at most."""
    thumbnail: bool = True
    """Whether the whole image is one more view behind several tiles."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("least", 1)
        if not self.least <= self.most <= MOST:
            raise SpecError(f"tiles.most: expected {self.least} (least) to {MOST:,}, got {self.most:,}")

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of tiles to choose from, in the order in which they are tried."""
        return _grids(self.least, self.most)

    def plan(self, size: Size) -> ImagePlan:
        rows, columns = self.grid_for(size)
        canvas, square = Size(rows * self.size, columns * self.size), Size(self.size, self.size)
        tiles = Render(resize=canvas, canvas=canvas, tiles=self.squares(rows, columns))
        whole = Render(resize=square, canvas=square, tiles=self.squares())
        return ImagePlan(source=size, renders=(tiles, whole) if self.thumbnail and rows * columns > 1 else (tiles,))

    def grid_for(self, size: Size) -> tuple[int, int]:
        """Rows and columns of tiles for an image of this size: Tiles(size=448, most=6).grid_for(Size(480, 640)) is (2, 3)."""
        aspect = size.width / size.height
        nearest, best = float("inf"), (1, 1)
        for rows, columns in self.grids:
            apart = abs(aspect - columns / rows)
            if apart < nearest:
                nearest, best = apart, (rows, columns)
            elif apart == nearest and size.pixels > 0.5 * self.size * self.size * columns * rows:
                best = rows, columns
        return best


@functools.lru_cache(maxsize=64)
def _grids(least: int, most: int) -> tuple[tuple[int, int], ...]:
    pairs = [(rows, columns) for columns in range(1, most + 1) for rows in range(1, most // columns + 1) if rows * columns >= least]
    return tuple(sorted(pairs, key=lambda pair: pair[0] * pair[1]))
