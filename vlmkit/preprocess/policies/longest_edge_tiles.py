"""Tiles over the longest edge: the image is resized so that its longer side is a row of tiles, stretched until its shorter
side is whole tiles too, and cut; the whole image, squashed into one more view, comes last.

Idefics3 (Laurencon et al. 2024, arXiv:2408.12637) and SmolVLM (Marafioti et al. 2025, arXiv:2504.05299). The longer side
becomes tiles * size, small images are enlarged; the shorter side is rounded down, then up to an even number, in floating
point as published. Then a second resize takes the shorter side up to a multiple of the tile, and a third one takes that
picture, not the original, to the last view. For 400 x 640 and 4 tiles of 364 the sizes are 910 x 1456, 1092 x 1456 and
364 x 364: 3 x 4 tiles and the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from vlmkit.preprocess.geometry import ImagePlan, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.base import Resample, SquarePolicy


@policies.register("longest_edge_tiles")
@dataclass(frozen=True, kw_only=True)
class LongestEdgeTiles(SquarePolicy):
    """Tiles in raster order, then the whole image."""

    resample: Resample = "lanczos"
    tiles: int = 4
    """Tiles along the longer side. transformers caps that side at 4096 pixels; here nothing is capped."""
    split: bool = True
    """False leaves the tiles out: one view of the whole image, by way of the first size. With one tile there is one view
    too."""
    longest: int | None = None
    """Pixels of the longer side at first, in place of `tiles` whole ones; it is stretched to whole ones after that."""

    later: ClassVar[frozenset[str]] = frozenset({"longest"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("tiles", 1)
        if self.longest is not None:
            self.require("longest", 1)

    def plan(self, size: Size) -> ImagePlan:
        square, fitted = Size(self.size, self.size), self._fitted(size)
        if not self.split:
            return ImagePlan(source=size, renders=(self._whole(fitted),))
        stretched = self._stretched(fitted)
        if stretched == square:
            return ImagePlan(source=size, renders=(self._whole(fitted),))
        rows, columns = stretched.height // self.size, stretched.width // self.size
        tiles = Render(via=(fitted,), resize=stretched, canvas=stretched, tiles=self.squares(rows, columns))
        return ImagePlan(source=size, renders=(tiles, self._whole(fitted, stretched)))

    def _whole(self, *via: Size) -> Render:
        square = Size(self.size, self.size)
        return Render(via=via, resize=square, canvas=square, tiles=self.squares())

    def _fitted(self, size: Size) -> Size:
        """The longer side filled, the other one rounded down and made even: 3 x 1000 -> 4 x 1456."""
        long, aspect = self.longest or self.tiles * self.size, size.width / size.height
        wide = size.width >= size.height
        short = int(long / aspect) if wide else int(long * aspect)
        short = max(short + short % 2, 1)
        return Size(short, long) if wide else Size(long, short)

    def _stretched(self, fitted: Size) -> Size:
        """Both sides up to whole tiles."""
        aspect = fitted.width / fitted.height

        def up(side: int) -> int:
            return math.ceil(max(side, 1) / self.size) * self.size

        if fitted.width >= fitted.height:
            width = up(fitted.width)
            return Size(up(int(width / aspect)), width)
        height = up(fitted.height)
        return Size(height, up(int(height * aspect)))
