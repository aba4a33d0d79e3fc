"""The contract of a connector: visual features of the encoder's width become tokens of the language model's width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vlmkit.connectors import connectors
from vlmkit.features import Grid
from vlmkit.spec import Spec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Connector(Spec):
    """Base of connectors. `grid_out` and the module built by `build` always agree.

    One that stands behind several towers says so in `towers`: its `grid_out`, `problems`, `build` and module take one grid, a tuple of
    widths and one Features for each of them.
    """

    registry = connectors

    towers: ClassVar[int | None] = 1
    """How many towers' features it takes; None: any number, each as an argument of its own."""

    @property
    def merge(self) -> int:
        """Patches that one token covers along each side; what a policy has to align to, besides the patch."""
        return 1

    @property
    def merge_clips(self) -> int:
        """The same of a film, whose views have several frames."""
        return self.merge

    @property
    def least_frames(self) -> int:
        """Frames that a film has to have at least, for a connector that knows films by their frames. A shorter one is filled up with its
        last frame, and layouts place no frame twice."""
        return 1

    def grid_out(self, grid: Grid) -> Grid:
        """The grid of one view's tokens after the connector. Raises GridError for a grid that it cannot take."""
        return grid

    def problems(self, dim_in: Any, dim_out: int) -> list[str]:
        """Why the connector cannot stand between these widths (of several towers a tuple); empty if it can."""
        return []

    def build(self, dim_in: Any, dim_out: int) -> nn.Module:
        """A module: Features (N, dim_in) -> Features (T, dim_out). Raises SpecError for widths that it cannot serve.

        vlmkit's own stand beside their descriptions, in connectors/<kind>_module.py.
        """
        module: nn.Module = connectors.built(self, "module", dim_in, dim_out)
        return module
