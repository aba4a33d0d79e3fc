"""Tiles on a padded canvas: of all canvases of a few tiles the one that asks for the least change of size; the image keeps its
shape, stands in the upper left corner, and what is left of the canvas is filled with one colour.

Llama 3.2-Vision (Dubey et al. 2024, arXiv:2407.21783, section 7), after transformers' MllamaImageProcessor and the image transform
of github.com/meta-llama/llama-models. A canvas asks for the scale by which the image would fill it. The least scale of 1 or more
wins; where every canvas is too small, the greatest one; among equals the smallest canvas. The image is not enlarged to the canvas: it
is scaled down where it does not fit, and up only until a side is a tile's. With tiles of 560 pixels 400 x 640 stays as it is on a
canvas of 1 x 2 tiles, and 200 x 300 becomes 373 x 560 on a single one. Scales are floating point, as published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from vlmkit.preprocess.geometry import ImagePlan, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import Colour, Resample, SquarePolicy, check_colour


@policies.register("canvas_tiles")
@dataclass(frozen=True, kw_only=True)
class CanvasTiles(SquarePolicy):
    """Tiles in raster order, those without a pixel of the image included."""

    resample: Resample = "bilinear"
    tiles: int = 4
    """Tiles of a canvas at most: its rows times its columns."""
    fill: Colour = (0, 0, 0)
    """RGB beside the image, 0 to 255."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("tiles", 1)
        check_colour("canvas_tiles.fill", self.fill)

    @property
    def canvases(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of tiles of every canvas."""
        sides = range(1, self.tiles + 1)
        return tuple((rows, columns) for rows in sides for columns in sides if rows * columns <= self.tiles)

    def plan(self, size: Size) -> ImagePlan:
        rows, columns = self._canvas(size)
        canvas = Size(rows * self.size, columns * self.size)
        tiles = Render(resize=self._picture(size, canvas), canvas=canvas, tiles=self.squares(rows, columns), fill=self.fill)
        return ImagePlan(source=size, renders=(tiles,))

    def _canvas(self, size: Size) -> tuple[int, int]:
        """Rows and columns of the best canvas."""

        def scale(canvas: tuple[int, int]) -> float:
            return min(canvas[0] * self.size / size.height, canvas[1] * self.size / size.width)

        scales = {canvas: scale(canvas) for canvas in self.canvases}
        enlarging = [value for value in scales.values() if value >= 1]
        best = min(enlarging) if enlarging else max(scales.values())
        return min((canvas for canvas in self.canvases if scales[canvas] == best), key=lambda canvas: canvas[0] * canvas[1])

    def _picture(self, size: Size, canvas: Size) -> Size:
        """The image as large as it is, within the canvas, and with a side of a tile at least."""
        height, width = (min(max(side, self.size), limit) for side, limit in ((size.height, canvas.height), (size.width, canvas.width)))
        down, across = height / size.height, width / size.width
        if across < down:
            return Size(min(max(math.floor(size.height * across), 1), height), width)
        return Size(height, min(max(math.floor(size.width * down), 1), width))
