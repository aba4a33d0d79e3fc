"""Sizes, boxes and plans: what to resample, where to place it, which views to cut. Whole numbers only."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

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
class Clip:
    """A film as far as counting needs it: Clip(seconds=20, fps=30, size=Size(1080, 1920))."""

    seconds: float
    fps: float
    """Frames a second of the film itself, not of those that are shown."""
    size: Size

    def __post_init__(self) -> None:
        for name, value in (("seconds", self.seconds), ("fps", self.fps)):
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise ImageSizeError(f"a clip's {name} are a number above 0, got {value!r}")
        if not isinstance(self.size, Size):
            raise ImageSizeError(f"a clip's size is a Size such as Size(1080, 1920), got {self.size!r}")

    @property
    def frames(self) -> int:
        """Clip(20, 30, size).frames is 600; a film has at least one."""
        return max(1, round(self.seconds * self.fps))

    def __str__(self) -> str:
        return f"{self.seconds:g}s@{self.fps:g}fps,{self.size.width}x{self.size.height}"


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
    enlarged: int | None = None
    """Pixels that the longer side of a tile is enlarged to, a whole number of times, after it was cut: resampling it then sees no pixel of
    its neighbours. None: tiles are seen as they are."""
    kept: tuple[Box, ...] = ()
    """Of each tile the part that is its own, where tiles overlap: boxes on the canvas, which together cover it once. Empty: no tile
    overlaps another one."""

    @property
    def views(self) -> tuple[Size, ...]:
        """The size in pixels of what is seen of each tile."""
        if self.enlarged is None:
            return tuple(tile.size for tile in self.tiles)
        times = [self.enlarged // max(tile.height, tile.width) for tile in self.tiles]
        return tuple(Size(tile.height * time, tile.width * time) for tile, time in zip(self.tiles, times, strict=True))

    @property
    def tile_grid(self) -> tuple[int, int]:
        """Rows and columns of tiles: (2, 3) for six tiles in two rows."""
        return len({tile.top for tile in self.tiles}), len({tile.left for tile in self.tiles})

    def padding(self, source: Size) -> tuple[tuple[int, int, int, int], ...]:
        """Of each view the pixels above, left of, below and right of an image of this size, up to all of the view. A pixel that the frame
        mixes of image and fill counts as padding."""
        frame, found = self._frame(source), []
        for tile, view in zip(self.tiles, self.views, strict=True):
            times = view.height // tile.height
            down = _beside(tile.top, tile.height, self.top, frame.top, frame.height, self.resize.height, source.height)
            across = _beside(tile.left, tile.width, self.left, frame.left, frame.width, self.resize.width, source.width)
            found.append((down[0] * times, across[0] * times, down[1] * times, across[1] * times))
        return tuple(found)

    def from_image(self, x: float, y: float, source: Size) -> tuple[float, float]:
        """Where a point of the image stands on the canvas; both are counted in pixels from an upper left corner, right and down."""
        frame = self._frame(source)
        scale_x, scale_y = self.resize.width / frame.width, self.resize.height / frame.height
        return self.left + (x - frame.left) * scale_x, self.top + (y - frame.top) * scale_y

    def to_image(self, x: float, y: float, source: Size) -> tuple[float, float]:
        """Which point of the image stands at a point of the canvas: the inverse."""
        frame = self._frame(source)
        scale_x, scale_y = frame.width / self.resize.width, frame.height / self.resize.height
        return frame.left + (x - self.left) * scale_x, frame.top + (y - self.top) * scale_y

    def _frame(self, source: Size) -> Box:
        return Box(0, 0, source.height, source.width) if self.frame is None else self.frame

    @classmethod
    def whole(cls, size: Size) -> Render:
        """The image resampled to `size`, one view."""
        return cls(resize=size, canvas=size, tiles=(Box(0, 0, size.height, size.width),))


def _beside(tile: int, side: int, corner: int, frame: int, length: int, resized: int, source: int) -> tuple[int, int]:
    """Along one axis: how much of a tile lies before the image, and behind it. The frame, of this length, is resampled to so many pixels
    and stands at the corner."""
    begin = corner + -(frame * resized // length)
    end = corner + (source - frame) * resized // length
    return min(max(begin - tile, 0), side), min(max(tile + side - end, 0), side)


@dataclass(frozen=True)
class ImagePlan:
    """How one image, or each frame of a film, of a given size becomes views. Views are numbered render by render, tile by tile."""

    source: Size
    renders: tuple[Render, ...]
    times: tuple[float, ...] = ()
    """When each shown frame of a film is seen, in seconds; empty for a picture."""

    @property
    def frames(self) -> int:
        """Frames that are shown, each of which goes through all renders; 1 for a picture."""
        return len(self.times) or 1

    @property
    def views(self) -> tuple[Size, ...]:
        """The size in pixels of each view of a picture, or of each view of one frame."""
        return tuple(view for render in self.renders for view in render.views)

    @functools.cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Of each view the row and column of its tile, counted from 0; (-1, -1) for a picture that is one view beside other pictures."""
        found: list[tuple[int, int]] = []
        for render in self.renders:
            rows, columns = (sorted({getattr(tile, side) for tile in render.tiles}) for side in ("top", "left"))
            alone = len(render.tiles) == 1 and len(self.renders) > 1
            found += [(-1, -1) if alone else (rows.index(tile.top), columns.index(tile.left)) for tile in render.tiles]
        return tuple(found)

    @functools.cached_property
    def padding(self) -> tuple[tuple[int, int, int, int], ...]:
        """Of each view the pixels above, left of, below and right of the image."""
        return tuple(view for render in self.renders for view in render.padding(self.source))

    def grids(self, patch: int, patch_frames: int = 1, clips: bool = False, least_frames: int = 1) -> tuple[Grid, ...]:
        """The patch grid of each view that an encoder sees. Raises GridError where a view is not a whole number of patches.

        A picture: one grid a view, of one frame, whatever the encoder. A film of F frames: where the encoder takes clips, one grid
        a view, of F / patch_frames frames, rounded up, and of `least_frames` at least; elsewhere the views of the first frame, then those
        of the second, and so on.
        """
        key = (patch, patch_frames, clips, least_frames)
        found = self._grids.get(key)
        if found is None:
            found = tuple(view.grid(patch) for view in self.views)
            if self.times:
                deep = max(least_frames, -(-self.frames // patch_frames))
                found = tuple(replace(grid, frames=deep) for grid in found) if clips else found * self.frames
            self._grids[key] = found
        return found

    @functools.cached_property
    def _grids(self) -> dict[tuple[int, int, bool, int], tuple[Grid, ...]]:
        return {}
