"""Overlapping crops: the whole image in one square, then squares cut from a larger picture of it, of which each sees `margin` pixels of its
neighbours.

Molmo (Deitke et al. 2024, arXiv:2409.17146), after `overlap-and-resize-c2` of olmo/data/model_preprocessor.py (github.com/allenai/molmo).
Crops begin every `size - 2 * margin` pixels, their window. Of all grids of up to `crops` windows the one is taken that the image, less the
margins at its border, has to be enlarged least for; where it has to shrink for each, the one for which it shrinks least; of several the
one of the fewest crops, then of the fewest rows. The picture keeps its shape, sides rounded down, and stands in the middle of its canvas,
the odd pixel below or on the right. Scales are float32, as published. For 480 x 640, crops of 336 and a margin of 56 the grid is 2 x 3:
the picture is 560 x 746 at column 19 of 560 x 784, and crops begin at 0 and 224 down, at 0, 224 and 448 across; the whole is 251 x 336,
for 480 times 0.525 is just below 252 there.

A point of the picture is shown by up to four crops and belongs to one of them, `Render.kept`: tokens of the others' margins are left out of
the sequence.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from vlmkit.preprocess.geometry import Box, ImagePlan, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import Colour, ImagePolicy, Resample, check_colour, nearest_multiple
from vlmkit.spec import SpecError


@policies.register("multicrop")
@dataclass(frozen=True, kw_only=True)
class MultiCrop(ImagePolicy):
    """The whole image first, then the crops in raster order."""

    size: int = 336
    """Side in pixels of a crop, and of the square that the whole image stands in."""
    margin: int = 56
    """Pixels that a crop sees of its neighbour beyond its own part, on each side: four patches of 14. Where they are no whole number of
    tokens, a layout has nothing to leave out, and crops are pictures of their own to it."""
    crops: int = 12
    """Crops at most, the whole image not counted."""
    fill: Colour = (0, 0, 0)
    """RGB beside the image, 0 to 255."""
    resample: Resample = "bilinear"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("size", 1)
        self.require("crops", 1)
        check_colour("multicrop.fill", self.fill)
        if not 0 <= 2 * self.margin < self.size:
            raise SpecError(f"multicrop.margin: expected 0 or more pixels, and less than half of the {self.size} (size), got {self.margin}")

    @property
    def window(self) -> int:
        """Pixels from where a crop begins to where its neighbour does."""
        return self.size - 2 * self.margin

    def plan(self, size: Size) -> ImagePlan:
        rows, columns = self.tiling(size)
        height, width = (count * self.window + 2 * self.margin for count in (rows, columns))
        crops = tuple(
            Box(row * self.window, column * self.window, self.size, self.size) for row in range(rows) for column in range(columns)
        )
        down, across = self._parts(rows), self._parts(columns)
        kept = tuple(Box(top, left, bottom - top, right - left) for top, bottom in down for left, right in across)
        whole = Box(0, 0, self.size, self.size)
        return ImagePlan(
            source=size, renders=(self._fitted(size, whole.size, (whole,)), self._fitted(size, Size(height, width), crops, kept))
        )

    def tiling(self, size: Size) -> tuple[int, int]:
        """Rows and columns of crops of an image of this size. One that is no larger than its margins counts as smaller than nothing: it is
        cut as little as can be along that side."""
        sides = size.height - 2 * self.margin, size.width - 2 * self.margin
        grids = [(rows, columns) for rows in range(1, self.crops + 1) for columns in range(1, self.crops // rows + 1)]
        grids.sort(key=lambda grid: (grid[0] * grid[1], grid[0]))
        scales = [min(_over(count * self.window, side) for count, side in zip(grid, sides, strict=True)) for grid in grids]
        enlarging = [number for number, scale in enumerate(scales) if scale >= 1]
        if enlarging:
            return grids[min(enlarging, key=scales.__getitem__)]
        return grids[max(range(len(grids)), key=scales.__getitem__)]

    def problems(self, multiple: int) -> list[str]:
        if self.size % multiple == 0:
            return []
        near = max(nearest_multiple(self.size, multiple), multiple * (2 * self.margin // multiple + 1))
        return [
            f"policy 'multicrop(size={self.size})' gives crops of {self.size}x{self.size} pixels, which are not a whole number of the "
            f"{multiple} pixels that patch and merge need. Use a size that is a multiple of {multiple}, such as {near}."
        ]

    def _parts(self, count: int) -> list[tuple[int, int]]:
        """Where the own parts of so many crops side by side begin and end."""
        between = [self.margin + number * self.window for number in range(1, count)]
        return list(zip([0, *between], [*between, count * self.window + 2 * self.margin], strict=True))

    def _fitted(self, size: Size, canvas: Size, tiles: tuple[Box, ...], kept: tuple[Box, ...] = ()) -> Render:
        """The image as large as the canvas holds it, in its middle."""
        scale = min(_over(canvas.height, size.height), _over(canvas.width, size.width))
        picture = self.resized(size, int(_float32(size.height * scale)), int(_float32(size.width * scale)))
        top, left = (canvas.height - picture.height) // 2, (canvas.width - picture.width) // 2
        return Render(resize=picture, canvas=canvas, tiles=tiles, top=top, left=left, fill=self.fill, kept=kept)


def _float32(value: float) -> float:
    found: float = struct.unpack("f", struct.pack("f", value))[0]
    return found


def _over(pixels: int, side: int) -> float:
    """pixels / side in float32; a side of nothing is enlarged without end."""
    return _float32(pixels / side) if side else math.inf
