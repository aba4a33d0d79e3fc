"""The contract of a vision encoder: patches of views of any sizes go in, one feature vector a patch comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmkit.encoders import encoders
from vlmkit.features import Grid
from vlmkit.spec import Spec

if TYPE_CHECKING:
    from vlmkit.encoders.tower import Tower

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's CLIP constants, kept by OpenCLIP: Radford et al. 2021 (arXiv:2103.00020)."""
HALF = (0.5, 0.5, 0.5)
"""Mean and std that take 0..255 to -1..1: SigLIP (arXiv:2303.15343) and many others."""


@dataclass(frozen=True, kw_only=True)
class Encoder(Spec):
    """Base of encoders. Subclasses say, as fields, which layer is returned, whether the final norm is applied, what
    happens to a class token and how positions are resampled to another grid."""

    registry = encoders

    mean: tuple[float, float, float]
    """RGB mean taken off pixels that were scaled to 0..1."""
    std: tuple[float, float, float]
    """RGB standard deviation they are then divided by."""

    @property
    def patch_size(self) -> int:
        """Side of a patch, p pixels."""
        raise NotImplementedError

    @property
    def dim_out(self) -> int:
        """Width of the features, D_v."""
        raise NotImplementedError

    def grid_out(self, grid: Grid) -> Grid:
        """The grid of one view's features, given its grid of patches. Raises GridError for a grid that the tower cannot
        take: a tower of fixed size refuses every other one unless position resampling is asked for."""
        return grid

    def build(self) -> Tower:
        """The tower with random weights, on the current default device (meta included)."""
        raise NotImplementedError

    def load_pretrained(self, tower: Tower) -> None:
        """Fill the tower from its published checkpoint. Raises SpecError where the spec names none."""
        raise NotImplementedError
