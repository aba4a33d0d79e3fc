"""One gated cross-attention layer: tokens of the text look at visual tokens, and pass an MLP of the layer's own.

Flamingo (Alayrac et al. 2022, arXiv:2204.14198): both branches go through a gate, the tanh of a number that begins at zero, so that a
language model with fresh layers in it is what it was.

    hidden = hidden + tanh(gate) * attention(norm(hidden), visual tokens)
    hidden = hidden + tanh(gate) * mlp(norm(hidden))
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from vlmkit.activations import Activation
from vlmkit.connectors.layers import GatedMlp
from vlmkit.fusion.sight import Sight

KeysValues = tuple[Tensor, Tensor]
"""(heads of keys and values, T, channels of a head) each."""


class Form(NamedTuple):
    """What a layer is made of, over one language model."""

    dim: int
    visual: int
    """Width of visual tokens."""
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    """Channels inside the gated MLP."""
    eps: float
    activation: Activation
    qk_norm: bool
    gate_size: int
    """One number for a branch, or one a channel."""
    gate_start: float
    gate_spread: float
    """Gates begin with this mean and standard deviation."""


class CrossLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """A layer that stands before one of the language model's own."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.gate_start, self.gate_spread = form.gate_start, form.gate_spread
        self.norm_attention = nn.RMSNorm(form.dim, eps=form.eps)
        self.attention = CrossAttentionHeads(form)
        self.norm_mlp = nn.RMSNorm(form.dim, eps=form.eps)
        self.mlp = GatedMlp(form.dim, form.hidden, form.dim, form.activation)
        self.gate_attention = nn.Parameter(torch.empty(form.gate_size))
        self.gate_mlp = nn.Parameter(torch.empty(form.gate_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for gate in (self.gate_attention, self.gate_mlp):
            nn.init.normal_(gate, self.gate_start, self.gate_spread)

    def forward(self, hidden: Tensor, sight: Sight, kept: KeysValues | None = None) -> tuple[Tensor, KeysValues | None]:
        """(B, S, D_lm) -> (B, S, D_lm), and keys and values of the visual tokens, `kept` where there are no new ones."""
        if sight.tokens is not None:
            kept = self.attention.keys_values(sight.tokens)
        if kept is not None and sight.mask is not None:
            attended = self.attention(self.norm_attention(hidden), kept, sight.mask)
            hidden = hidden + self.gate_attention.tanh() * attended.where(sight.attends[..., None], 0)
        fed = self.mlp(self.norm_mlp(hidden))
        return hidden + self.gate_mlp.tanh() * fed.where(sight.feeds[..., None], 0), kept


class CrossAttentionHeads(nn.Module):
    """Attention of text to visual tokens. Several heads of queries may share keys and values (Ainslie et al. 2023, arXiv:2305.13245)."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.head_dim = form.head_dim
        self.q_proj = nn.Linear(form.dim, form.heads * form.head_dim, bias=False)
        self.k_proj = nn.Linear(form.visual, form.kv_heads * form.head_dim, bias=False)
        self.v_proj = nn.Linear(form.visual, form.kv_heads * form.head_dim, bias=False)
        self.o_proj = nn.Linear(form.heads * form.head_dim, form.dim, bias=False)
        self.q_norm = nn.RMSNorm(form.head_dim, eps=form.eps) if form.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(form.head_dim, eps=form.eps) if form.qk_norm else nn.Identity()

    def keys_values(self, tokens: Tensor) -> KeysValues:
        """Of visual tokens (T, D)."""
        tokens = tokens.to(self.k_proj.weight.dtype)
        keys, values = (project(tokens).unflatten(-1, (-1, self.head_dim)) for project in (self.k_proj, self.v_proj))
        return self.k_norm(keys).transpose(0, 1), values.transpose(0, 1)

    def forward(self, hidden: Tensor, kept: KeysValues, mask: Tensor) -> Tensor:
        """(B, S, D_lm) -> (B, S, D_lm). mask: (B * S, T).

        Nothing is causal here, so all rows are one row of queries over all visual tokens, which are there once however many rows look
        at them.
        """
        queries = self.q_norm(self.q_proj(hidden).flatten(0, 1).unflatten(-1, (-1, self.head_dim))).transpose(0, 1)
        shared = len(queries) // len(kept[0])
        if shared > 1 and queries.is_cuda:  # kernels that take a mask take no shared heads there (never run: there was no GPU)
            kept, shared = (kept[0].repeat_interleave(shared, 0), kept[1].repeat_interleave(shared, 0)), 1
        keys, values = kept
        attended = functional.scaled_dot_product_attention(
            queries[None], keys[None], values[None], attn_mask=mask[None, None], enable_gqa=shared > 1
        )
        out: Tensor = self.o_proj(attended[0].transpose(0, 1).flatten(-2))
        return out.view(hidden.shape)
