"""Several towers' features of one image, joined before a connector that sees them as one.

Prismatic (Karamcheti et al. 2024, arXiv:2402.07865) puts the channels of DINOv2 and SigLIP side by side, patch by patch; Cambrian
(arXiv:2406.16860) and Apollo (arXiv:2412.10360) do so on a grid that all are resampled to. One behind the other is the other choice.
Channels: grids (F, H, W) of all towers alike -> the inner connector's. Sequence: grids of n and m tokens -> a row of n + m.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.connectors.mlp import Mlp
from vlmkit.features import Grid, GridError
from vlmkit.spec import SpecError

_TWO_LAYERS = Mlp()


@connectors.register("joined")
@dataclass(frozen=True, kw_only=True)
class Joined(Connector):
    """Any number of towers, one included."""

    inner: Connector = _TWO_LAYERS
    """What stands between the joined features and the language model."""
    how: Literal["channels", "sequence"] = "channels"
    """Side by side, patch by patch; or one tower's tokens of a view behind another's, as one row."""

    towers: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner.towers != 1:
            raise SpecError(f"joined.inner: {self.inner.kind!r} takes several towers itself; it needs a connector of one")

    @property
    def merge(self) -> int:
        return self.inner.merge

    def joined_grid(self, grids: tuple[Grid, ...]) -> Grid:
        """The grid of one view's features before the inner connector. Raises GridError where channels cannot stand side by side."""
        if self.how == "sequence":
            return Grid(1, 1, sum(grid.tokens for grid in grids)) if len(grids) > 1 else grids[0]
        if len(set(grids)) > 1:
            raise GridError(
                f"joined puts channels side by side patch by patch, but the towers' grids of a view are {' and '.join(map(str, grids))}; "
                "give them views and patches that make one grid, or use how='sequence'"
            )
        return grids[0]

    def grid_out(self, *grids: Grid) -> Grid:
        return self.inner.grid_out(self.joined_grid(grids))

    def width(self, dims_in: int | tuple[int, ...]) -> int:
        """Channels before the inner connector. Raises SpecError for a sequence of different widths."""
        dims = (dims_in,) if isinstance(dims_in, int) else dims_in
        if self.how == "channels":
            return sum(dims)
        if len(set(dims)) > 1:
            raise SpecError(
                f"joined.how: a sequence is of one width, but the towers give {' and '.join(map(str, dims))} channels; "
                "use how='channels' or towers of one width"
            )
        return dims[0]

    def problems(self, dim_in: Any, dim_out: int) -> list[str]:
        return self.inner.problems(self.width(dim_in), dim_out)
