"""Query attention: learned queries read the features of a view once, more of them where the view is larger.

ARIA's projector (Li et al. 2024, arXiv:2410.05993): 128 queries for views of up to 490 pixels, 256 for 980, the smaller number being the
first of the larger. One cross-attention with projections before those of the attention itself, a norm, an MLP without bias that takes
tokens to the language model's width; no residual. Grid (F, H, W) -> (F, 1, queries). From 1152 to 2560 channels it has 20,427,136
parameters. Weights have the names of transformers' AriaProjector.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.activations import Activation
from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.features import Grid
from vlmkit.spec import SpecError


@connectors.register("query_attention")
@dataclass(frozen=True, kw_only=True)
class QueryAttention(Connector):
    """Every frame by itself; a kept class token is read with each."""

    queries: tuple[tuple[int, int], ...] = ((35, 128), (70, 256))
    """Pairs of a number of patches and a number of queries: a view whose longer side has up to so many patches is read by so many
    queries. The last pair serves every larger view too."""
    heads: int = 16
    activation: Activation = "gelu_tanh"
    """Of the MLP; transformers calls it gelu_new."""
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        sides, counts = [side for side, _ in self.queries], [count for _, count in self.queries]
        if not sides or min(sides + counts) < 1 or sides != sorted(set(sides)):
            raise SpecError(f"query_attention.queries: expected pairs of 1 or more, by rising numbers of patches, got {self.queries}")
        if self.heads < 1:
            raise SpecError(f"query_attention.heads: expected 1 or more, got {self.heads}")
        if self.norm_eps <= 0:
            raise SpecError(f"query_attention.norm_eps: expected more than 0, got {self.norm_eps}")

    def grid_out(self, grid: Grid) -> Grid:
        longer = max(grid.rows, grid.columns)
        return Grid(grid.frames, 1, next((count for side, count in self.queries if longer <= side), self.queries[-1][1]))

    def problems(self, dim_in: int, dim_out: int) -> list[str]:
        if dim_in % self.heads == 0:
            return []
        return [f"connector 'query_attention' has {self.heads} heads, into which the {dim_in} channels of the encoder do not divide"]
