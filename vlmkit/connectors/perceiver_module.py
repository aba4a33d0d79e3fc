"""The module of `perceiver`: latents, the layers in which they read features, and views of any sizes as one batch for them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from vlmkit.connectors.layers import GatedMlp
from vlmkit.connectors.perceiver import Perceiver
from vlmkit.features import Features


def build(spec: Perceiver, dim_in: int, dim_out: int) -> nn.Module:
    return PerceiverModule(spec, dim_in, dim_out)


class PerceiverModule(nn.Module):
    def __init__(self, spec: Perceiver, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        self.projection = GatedMlp(dim_in, 4 * dim_out if spec.hidden is None else spec.hidden, dim_out, spec.activation)
        self.latents = nn.Parameter(torch.randn(spec.latents, dim_out) * dim_out**-0.5)
        self.layers = nn.ModuleList(PerceiverLayer(spec, dim_out) for _ in range(spec.depth))
        self.norm = nn.RMSNorm(dim_out, eps=spec.norm_eps)

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (frames * latents, D_lm). Each layer is called once, however the views differ: ZeRO-3 needs that."""
        grids = tuple(self.spec.grid_out(grid) for grid in features.grids)
        projected = Features(self.projection(features.tokens), features.grids)
        if not grids:
            return projected
        context, mask = padded(list(frames(projected)), self.spec.latents)
        latents = self.latents.expand(len(context), -1, -1)
        for layer in self.layers:
            latents = layer(latents, context, mask)
        return Features(self.norm(latents).flatten(0, 1), grids)


class PerceiverLayer(nn.Module):
    def __init__(self, spec: Perceiver, dim: int) -> None:
        super().__init__()
        self.input_latents_norm = nn.RMSNorm(dim, eps=spec.norm_eps)
        self.input_context_norm = nn.RMSNorm(dim, eps=spec.norm_eps)
        self.self_attn = PerceiverAttention(spec, dim)
        self.post_attention_layernorm = nn.RMSNorm(dim, eps=spec.norm_eps)
        self.mlp = GatedMlp(dim, 4 * dim, dim, spec.activation)

    def forward(self, latents: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """(V, latents, D), (V, n, D) -> (V, latents, D)"""
        latents = latents + self.self_attn(self.input_latents_norm(latents), self.input_context_norm(context), mask)
        out: Tensor = latents + self.mlp(self.post_attention_layernorm(latents))
        return out


class PerceiverAttention(nn.Module):
    def __init__(self, spec: Perceiver, dim: int) -> None:
        super().__init__()
        self.head_dim = spec.head_dim
        self.q_proj = nn.Linear(dim, spec.heads * spec.head_dim, bias=False)
        self.k_proj = nn.Linear(dim, spec.kv_heads * spec.head_dim, bias=False)
        self.v_proj = nn.Linear(dim, spec.kv_heads * spec.head_dim, bias=False)
        self.o_proj = nn.Linear(spec.heads * spec.head_dim, dim, bias=False)

    def forward(self, latents: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """Latents (V, latents, D) attend to context (V, n, D) and to themselves, where the mask (V, 1, 1, n + latents) lets them."""
        seen = torch.cat([context, latents], dim=1)
        queries, keys, values = (
            rearrange(tokens, "v n (heads d) -> v heads n d", d=self.head_dim)
            for tokens in (self.q_proj(latents), self.k_proj(seen), self.v_proj(seen))
        )
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=True)
        out: Tensor = self.o_proj(rearrange(attended, "v heads n d -> v n (heads d)"))
        return out


def frames(features: Features) -> Iterator[Tensor]:
    """The tokens of each frame, (n, D), behind those of its view that stand on no grid."""
    for grid, view in zip(features.grids, features.views(), strict=True):
        prefix, patches = view[: grid.prefix], view[grid.prefix :]
        for frame in patches.chunk(grid.frames):
            yield torch.cat([prefix, frame])


def padded(contexts: list[Tensor], latents: int) -> tuple[Tensor, Tensor | None]:
    """Contexts of any lengths as one (V, n, D), and what may be attended to, (V, 1, 1, n + latents); None is all of it."""
    lengths = [len(context) for context in contexts]
    tokens = pad_sequence(contexts, batch_first=True)
    if len(set(lengths)) == 1:
        return tokens, None
    real = torch.arange(max(lengths), device=tokens.device) < torch.tensor(lengths, device=tokens.device)[:, None]
    return tokens, functional.pad(real, (0, latents), value=True)[:, None, None]
