"""Query attention: learned queries read the features of a view once, more of them where the view is larger.

ARIA's projector (Li et al. 2024, arXiv:2410.05993): 128 queries for views of up to 490 pixels, 256 for 980, the smaller number being the
first of the larger. One cross-attention with projections before those of the attention itself, a norm, an MLP without bias that takes
tokens to the language model's width; no residual. Grid (F, H, W) -> (F, 1, queries). From 1152 to 2560 channels it has 20,427,136
parameters. Weights have the names of transformers' AriaProjector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.activations import Activation, activation
from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.connectors.perceiver import frames, padded
from vlmkit.features import Features, Grid
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

    def build(self, dim_in: int, dim_out: int) -> nn.Module:
        if problems := self.problems(dim_in, dim_out):
            raise SpecError(problems[0])
        return QueryAttentionModule(self, dim_in, dim_out)


class QueryAttentionModule(nn.Module):
    def __init__(self, spec: QueryAttention, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        self.query = nn.Parameter(torch.empty(max(count for _, count in spec.queries), dim_in))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.cross_attn = CrossAttention(spec, dim_in)
        self.layer_norm = nn.LayerNorm(dim_in, eps=spec.norm_eps)
        self.feed_forward = FeedForward(spec, dim_in, dim_out)

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (frames * queries, D_lm). Each layer is called once, however the views differ: ZeRO-3 needs that."""
        grids = tuple(self.spec.grid_out(grid) for grid in features.grids)
        if not grids:
            return Features(self.feed_forward(self.layer_norm(features.tokens)), ())
        counts = [grid.columns for grid in grids for _ in range(grid.frames)]
        context, mask = padded(list(frames(features)), 0)
        # No query looks at another one, so those that a view does not have are left out afterwards.
        attended = self.cross_attn(self.query[: max(counts)].expand(len(context), -1, -1), context, mask)
        tokens = torch.cat([view[:count] for view, count in zip(attended, counts, strict=True)])
        return Features(self.feed_forward(self.layer_norm(tokens)), grids)


class CrossAttention(nn.Module):
    def __init__(self, spec: QueryAttention, dim: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.multihead_attn = MultiheadAttention(spec.heads, dim)
        self.linear = nn.Linear(dim, dim)
        self.layer_norm = nn.LayerNorm(dim, eps=spec.norm_eps)
        self.layer_norm_kv = nn.LayerNorm(dim, eps=spec.norm_eps)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """Queries (V, q, D) attend to context (V, n, D) where the mask (V, 1, 1, n) lets them -> (V, q, D)."""
        queries, context = self.layer_norm(queries), self.layer_norm_kv(context)
        out: Tensor = self.linear(self.multihead_attn(self.q_proj(queries), self.k_proj(context), self.v_proj(context), mask))
        return out


class MultiheadAttention(nn.Module):
    """The weights of torch's module of the same name. That one reads the weights of its `out_proj` without calling it, and ZeRO-3 would not
    bring them."""

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Queries (V, q, D), keys and values (V, n, D), what may be attended to (V, 1, 1, n) -> (V, q, D)."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        queries, keys, values = (
            rearrange(functional.linear(one, weight, bias), "v n (heads d) -> v heads n d", heads=self.heads)
            for one, weight, bias in zip((queries, keys, values), weights, biases, strict=True)
        )
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        out: Tensor = self.out_proj(rearrange(attended, "v heads n d -> v n (heads d)"))
        return out


class FeedForward(nn.Module):
    def __init__(self, spec: QueryAttention, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(dim_in, dim_out, bias=False)
        self.linear_out = nn.Linear(dim_out, dim_out, bias=False)
        self.activation = activation(spec.activation)

    def forward(self, tokens: Tensor) -> Tensor:
        """(T, D_v) -> (T, D_lm)"""
        out: Tensor = self.linear_out(self.activation(self.linear_in(tokens)))
        return out
