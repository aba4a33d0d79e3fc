"""No tower: a patch's own pixels are its features, and the connector is the first that learns (Fuyu, adept.ai/blog/fuyu-8b).

It has no weights, sees no neighbour and knows no place: where a patch stands, its place in the sequence says alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vlmkit.encoders import encoders
from vlmkit.encoders.base import HALF, Encoder, refuse_frames
from vlmkit.features import Grid
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from torch import nn


@encoders.register("patches")
@dataclass(frozen=True, kw_only=True)
class Patches(Encoder):
    """The defaults are those of adept/fuyu-8b."""

    patch: int = 30
    """Side of a patch in pixels."""
    order: Literal["dh dw c", "c dh dw"] = "dh dw c"
    """Order of a patch's numbers: pixel by pixel, or colour by colour as in the weight of a convolution."""
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch < 1:
            raise SpecError(f"patches.patch: expected 1 or more, got {self.patch}")

    @property
    def patch_size(self) -> int:
        return self.patch

    @property
    def dim_out(self) -> int:
        return 3 * self.patch**2

    def grid_out(self, grid: Grid) -> Grid:
        refuse_frames(self.kind, grid)
        return grid

    def load_pretrained(self, tower: nn.Module) -> None:
        """There is nothing to load."""
