"""The module of `query_attention`: queries, one cross-attention, an MLP. Names of weights are those of transformers' AriaProjector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlmkit.activations import activation
from vlmkit.connectors.layers import MultiheadAttention
from vlmkit.connectors.perceiver_module import frames, padded
from vlmkit.connectors.query_attention import QueryAttention
from vlmkit.features import Features
from vlmkit.spec import SpecError


def build(spec: QueryAttention, dim_in: int, dim_out: int) -> nn.Module:
    if problems := spec.problems(dim_in, dim_out):
        raise SpecError(problems[0])
    return QueryAttentionModule(spec, dim_in, dim_out)


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
