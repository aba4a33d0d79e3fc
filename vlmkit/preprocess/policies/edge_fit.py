"""Edge fit: the longer side becomes a given length, the shorter one follows, down to a least length; below and on the right whole
patches are filled up with one colour.

ARIA (Li et al. 2024, arXiv:2410.05993), whose processor pads to a square and masks every patch without a pixel of the image; here such
patches are not made. The shorter side is rounded down, in floating point as published. For a length of 980 and patches of 14,
480 x 640 becomes 735 x 980 on a canvas of 742 x 980: 53 x 70 patches, the last row half of them colour. With `grids` the image is cut into
squares of the given length first, chosen and placed as `anyres` does, and there is no view of the whole. The grid may be one of squares of
half that length: then 450 x 1400 takes 1 x 3 squares of 490 and becomes a view of 490 x 980 and one of the third square, which is
enlarged to 980 x 980 after it was cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from vlmkit.preprocess.geometry import Box, ImagePlan, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.anyres import best_grid, centred
from vlmkit.preprocess.policies.base import Colour, FactorPolicy, check_colour
from vlmkit.spec import SpecError


@policies.register("edge_fit")
@dataclass(frozen=True, kw_only=True)
class EdgeFit(FactorPolicy):
    """One view of nearly the image's own shape, or squares."""

    longest: int = 980
    """Pixels of the longer side. What fills no patch at its end is cut off."""
    shortest: int = 336
    """Pixels that the shorter side has at least; thinner images are stretched."""
    factor: int = 14
    fill: Colour = (0, 0, 0)
    """RGB below and beside the image, 0 to 255."""
    grids: tuple[tuple[int, int], ...] = ()
    """Rows and columns of squares to choose from; none for one view of the whole."""
    halves: bool = False
    """Whether these squares are half as long as the longer side. Views are cut as long as ever, where there are so many."""

    later: ClassVar[frozenset[str]] = frozenset({"halves"})

    def __post_init__(self) -> None:
        super().__post_init__()
        check_colour("edge_fit.fill", self.fill)
        if not max(self.shortest, self.factor) <= self.longest or self.shortest < 1:
            raise SpecError(
                f"edge_fit: expected 1 <= shortest <= longest and factor <= longest, got {self.shortest}, {self.longest} and {self.factor}"
            )
        if any(min(grid) < 1 for grid in self.grids):
            raise SpecError(f"edge_fit.grids: expected grids of 1x1 squares or more, got {self.grids}")
        if self.halves and (self.longest % (2 * self.factor) or 2 * self.shortest > self.longest):
            raise SpecError(
                f"edge_fit.halves: expected a half of the longest side that is a multiple of factor={self.factor} and no shorter than "
                f"shortest={self.shortest}, got longest={self.longest}"
            )

    def plan(self, size: Size) -> ImagePlan:
        return ImagePlan(source=size, renders=(self._squares(size) if self.grids else self._whole(size),))

    def _whole(self, size: Size) -> Render:
        scale = self.longest / max(size.height, size.width)
        if size.width >= size.height:
            picture = Size(max(int(size.height * scale), self.shortest), self.longest)
        else:
            picture = Size(self.longest, max(int(size.width * scale), self.shortest))
        seen = Size(*(min(-(-side // self.factor) * self.factor, self._seen) for side in (picture.height, picture.width)))
        canvas = Size(max(seen.height, picture.height), max(seen.width, picture.width))
        return Render(resize=picture, canvas=canvas, tiles=(Box(0, 0, seen.height, seen.width),), fill=self.fill)

    @property
    def _seen(self) -> int:
        """Pixels of the longer side in whole patches."""
        return self.longest // self.factor * self.factor

    def _squares(self, size: Size) -> Render:
        side = self.longest // 2 if self.halves else self.longest
        rows, columns = best_grid(self.grids, side, size)
        canvas = Size(rows * side, columns * side)
        tiles = tuple(
            Box(top, left, min(self._seen, canvas.height - top), min(self._seen, canvas.width - left))
            for top in range(0, canvas.height, self.longest)
            for left in range(0, canvas.width, self.longest)
        )
        return replace(centred(size, canvas, tiles, self.fill), enlarged=self.longest if self.halves else None)
