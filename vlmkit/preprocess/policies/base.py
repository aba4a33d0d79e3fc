"""The contract of an image policy: a size goes in, a plan comes out; no pixels are touched."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Literal

from vlmkit.preprocess.geometry import Box, ImagePlan, ImageSizeError, Size
from vlmkit.preprocess.policies import policies
from vlmkit.spec import Spec, SpecError

Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Colour = tuple[int, int, int]
"""RGB, 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class ImagePolicy(Spec):
    """Base of image policies: how an image is resized, padded and cut into views."""

    registry = policies

    resample: Resample = "bicubic"
    """Filter of the resampling."""
    antialias: bool = True
    """Widen the filter when shrinking, as PIL does."""

    def plan(self, size: Size) -> ImagePlan:
        """What to do with an image of this size. Raises ImageSizeError where the policy cannot serve it."""
        raise NotImplementedError

    def plan_clip(self, size: Size, times: tuple[float, ...]) -> ImagePlan:
        """What to do with the shown frames of a film of this size, seen at `times` (seconds): each is planned as a picture is, where a
        policy has no rule of its own for films. Raises ImageSizeError where the policy cannot serve the size."""
        return replace(self.plan(size), times=check_times(times))

    def problems(self, multiple: int) -> list[str]:
        """Why views of this policy would not be whole multiples of `multiple` pixels (patch x merge); empty if they are."""
        return []

    def resized(self, source: Size, height: int, width: int) -> Size:
        """Size(height, width). Raises ImageSizeError where an image is so thin that a side of it would have no pixel."""
        if min(height, width) < 1:
            raise ImageSizeError(
                f"{self.kind} keeps the aspect ratio, but an image of {source} (height x width) has {source.aspect_ratio:.6g} "
                f"and would be resized to {height}x{width}"
            )
        return Size(height, width)

    def require(self, field: str, least: int) -> None:
        """Raises SpecError where a field is below its least value."""
        if getattr(self, field) < least:
            raise SpecError(f"{self.kind}.{field}: expected {least} or more, got {getattr(self, field)}")


@dataclass(frozen=True, kw_only=True)
class SquarePolicy(ImagePolicy):
    """Base of policies whose views are squares of one size."""

    size: int
    """Side in pixels of the square that is made."""
    view: int | None = None
    """Side of its upper left part that is seen, for encoders that leave out what does not fill a patch: 378 of 384 pixels
    with patches of 14. None is all of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise SpecError(f"{self.kind}.size: expected 1 or more pixels, got {self.size}")
        if self.view is not None and not 1 <= self.view <= self.size:
            raise SpecError(f"{self.kind}.view: expected 1 to {self.size} pixels (size), got {self.view}")

    def squares(self, rows: int = 1, columns: int = 1) -> tuple[Box, ...]:
        """The views on a canvas of rows x columns squares, in raster order."""
        size, side = self.size, self.size if self.view is None else self.view
        return tuple(Box(row * size, column * size, side, side) for row in range(rows) for column in range(columns))

    def problems(self, multiple: int) -> list[str]:
        side = self.size if self.view is None else self.view
        if side % multiple == 0:
            return []
        if self.view is None:
            name, field, number = f"size={side}", "a size", nearest_multiple(side, multiple)
        elif multiple <= self.size:
            name, field, number = f"size={self.size}, view={side}", "a view", self.size // multiple * multiple
        else:
            name, field, number = f"size={self.size}, view={side}", "view=None and a size", multiple
        return [
            f"policy '{self.kind}({name})' gives views of {side}x{side} pixels, which are not a whole number of the "
            f"{multiple} pixels that patch and merge need. Use {field} that is a multiple of {multiple}, such as {number}."
        ]


@dataclass(frozen=True, kw_only=True)
class FactorPolicy(ImagePolicy):
    """Base of policies whose views have sides that are multiples of a factor."""

    factor: int
    """Both sides of a view are multiples of this many pixels: patch size times the connector's merge."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("factor", 1)

    def problems(self, multiple: int) -> list[str]:
        if self.factor % multiple == 0:
            return []
        return [
            f"policy '{self.kind}(factor={self.factor})' gives sides that are multiples of {self.factor}, not of the {multiple} "
            f"that patch and merge need. Use a factor that is a multiple of {multiple}, such as {self.near_factor(multiple)}."
        ]

    def near_factor(self, multiple: int) -> int:
        """The multiple of this many pixels that is nearest to the factor and that the other fields allow; where they allow none near it,
        the least one of both."""
        nearest = sorted(range(multiple, 2 * self.factor + multiple, multiple), key=lambda number: abs(number - self.factor))
        for number in nearest:
            try:
                self.replace(factor=number)
            except SpecError:
                continue
            return number
        return math.lcm(self.factor, multiple)


def nearest_multiple(number: int, of: int) -> int:
    """The multiple of `of`, from `of` itself up, that is nearest to the number; of two the larger."""
    return max(1, (number + of // 2) // of) * of


def check_times(times: tuple[float, ...]) -> tuple[float, ...]:
    """The times of a film's frames. Raises ImageSizeError where there are none, or where one is before another that it follows."""
    if not times or any(later < earlier for earlier, later in itertools.pairwise(times)):
        raise ImageSizeError(f"a film shows at least one frame, and its frames in the order of their times, got {len(times)} frame(s)")
    return times


def check_colour(path: str, colour: Colour) -> None:
    """Raises SpecError, naming the path, for what is no colour of 8 bits."""
    if not all(0 <= value <= 255 for value in colour):
        raise SpecError(f"{path}: expected three values from 0 to 255, got {colour}")
