"""Sizes, boxes and plans: what to resample, where to place it, which views to cut. Whole numbers only."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from vlmkit.features import Grid, GridError


class ImageSizeError(ValueError):
    """A size that a policy cannot serve, with both numbers."""


@dataclass(frozen=True)
class Size:
    """Pixels, height first: Size(480, 640) is a landscape photo."""

    height: int
    width: int

    def __post_init__(self) -> None:
        for side in (self.height, self.width):
            if type(side) is not int or side < 1:
                raise ImageSizeError(
                    f"an image side is a whole number of pixels from 1 up, got {self.height!r} x {self.width!r} (height x width)"
                )

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def aspect_ratio(self) -> float:
        """Longer side over shorter side, 1 or more."""
        return max(self.height, self.width) / min(self.height, self.width)

    def grid(self, patch: int) -> Grid:
        """Patches of `patch` pixels: Size(392, 392).grid(14) is Grid(1, 28, 28). Raises GridError where they do not fit."""
        if self.height % patch or self.width % patch:
            raise GridError(f"{self} pixels are not a whole number of {patch}x{patch} patches")
        return Grid(1, self.height // patch, self.width // patch)

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; `top` and `left` count from the upper left corner."""

    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> Size:
        return Size(self.height, self.width)


@dataclass(frozen=True)
class Render:
    """One resampled picture and the views cut from it.

    The `frame` (the whole image, if none is given) is resampled to `resize`, placed with its upper left corner at
    (top, left) of a `canvas` filled with one colour (a negative corner crops), and cut into `tiles` in raster order.

        frame, in image pixels            canvas, in pixels of views
        +---------------+                 +---------------------+      top, left = the picture's corner on the canvas
        |     fill      |     resize      | fill  +-------+     |
        |+-------------+|  ----------->   |       |picture|     |      tiles = the views, boxes on the canvas
        ||    image    ||                 |       +-------+     |
        |+-------------+|                 +---------------------+
        +---------------+
    """

    resize: Size
    canvas: Size
    tiles: tuple[Box, ...]
    top: int = 0
    left: int = 0
    fill: tuple[int, int, int] = (0, 0, 0)
    """RGB outside the image, in the frame and on the canvas, 0 to 255."""
    frame: Box | None = None
    """What is resampled, a box on the image that may reach beyond it on any side: padding or cropping before resampling."""
    via: tuple[Size, ...] = ()
    """Sizes that the frame is resampled to one after the other on its way to `resize`."""

    @property
    def tile_grid(self) -> tuple[int, int]:
        """Rows and columns of tiles: (2, 3) for six tiles in two rows."""
        return len({tile.top for tile in self.tiles}), len({tile.left for tile in self.tiles})

    @classmethod
    def whole(cls, size: Size) -> Render:
        """The image resampled to `size`, one view."""
        return cls(resize=size, canvas=size, tiles=(Box(0, 0, size.height, size.width),))


@dataclass(frozen=True)
class ImagePlan:
    """How one image of a given size becomes views. Views are numbered render by render, tile by tile."""

    source: Size
    renders: tuple[Render, ...]

    @property
    def views(self) -> tuple[Size, ...]:
        """The size of each view in pixels."""
        return tuple(tile.size for render in self.renders for tile in render.tiles)

    @functools.cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Of each view the row and column of its tile, counted from 0; (-1, -1) for a picture that is one view beside other pictures."""
        found: list[tuple[int, int]] = []
        for render in self.renders:
            rows, columns = (sorted({getattr(tile, side) for tile in render.tiles}) for side in ("top", "left"))
            alone = len(render.tiles) == 1 and len(self.renders) > 1
            found += [(-1, -1) if alone else (rows.index(tile.top), columns.index(tile.left)) for tile in render.tiles]
        return tuple(found)

    def grids(self, patch: int) -> tuple[Grid, ...]:
        """The patch grid of each view. Raises GridError where a view is not a whole number of patches."""
        found = self._grids.get(patch)
        if found is None:
            found = self._grids[patch] = tuple(view.grid(patch) for view in self.views)
        return found

    @functools.cached_property
    def _grids(self) -> dict[int, tuple[Grid, ...]]:
        return {}
