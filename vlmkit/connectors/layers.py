"""A gated MLP and an attention, which connectors and fusions share; activations are in vlmkit/activations.py."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.activations import Activation, activation


class GatedMlp(nn.Module):
    """Two linear layers side by side, the product of one with the activation of the other, a third one: no bias (Shazeer 2020,
    arXiv:2002.05202; SwiGLU with "silu")."""

    def __init__(self, dim_in: int, hidden: int, dim_out: int, name: Activation) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim_in, hidden, bias=False)
        self.up_proj = nn.Linear(dim_in, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim_out, bias=False)
        self.activation = activation(name)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., dim_in) -> (..., dim_out)"""
        out: Tensor = self.down_proj(self.activation(self.gate_proj(tokens)) * self.up_proj(tokens))
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
