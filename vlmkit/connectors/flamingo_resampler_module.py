"""The module of `flamingo_resampler`: latents, and the layers in which they read features."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.connectors.flamingo_resampler import FlamingoResampler
from vlmkit.connectors.perceiver_module import frames, padded
from vlmkit.features import Features


def build(spec: FlamingoResampler, dim_in: int, dim_out: int) -> nn.Module:
    return ResamplerModule(spec, dim_in, dim_out)


class ResamplerModule(nn.Module):
    def __init__(self, spec: FlamingoResampler, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        self.latents = nn.Parameter(torch.randn(spec.latents, dim_in))
        self.layers = nn.ModuleList(ResamplerLayer(spec, dim_in) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(dim_in)
        self.projection = nn.Identity() if dim_in == dim_out else nn.Linear(dim_in, dim_out)

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (frames * latents, D). Each layer is called once, however the views differ: ZeRO-3 needs that."""
        grids = tuple(self.spec.grid_out(grid) for grid in features.grids)
        if not grids:
            return Features(self.projection(features.tokens), ())
        context, mask = padded(list(frames(features)), self.spec.latents)
        latents = self.latents.expand(len(context), -1, -1)
        for layer in self.layers:
            latents = layer(latents, context, mask)
        return Features(self.projection(self.norm(latents).flatten(0, 1)), grids)


class ResamplerLayer(nn.Module):
    def __init__(self, spec: FlamingoResampler, dim: int) -> None:
        super().__init__()
        self.attention = ResamplerAttention(spec, dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim, bias=False), nn.ReLU(), nn.Linear(4 * dim, dim, bias=False))

    def forward(self, latents: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """(V, latents, D), (V, n, D) -> (V, latents, D)"""
        latents = latents + self.attention(latents, context, mask)
        out: Tensor = latents + self.mlp(latents)
        return out


class ResamplerAttention(nn.Module):
    def __init__(self, spec: FlamingoResampler, dim: int) -> None:
        super().__init__()
        self.head_dim = spec.head_dim
        width = spec.heads * spec.head_dim
        self.context_norm = nn.LayerNorm(dim)
        self.latents_norm = nn.LayerNorm(dim)
        self.q_proj = nn.Linear(dim, width, bias=False)
        self.k_proj = nn.Linear(dim, width, bias=False)
        self.v_proj = nn.Linear(dim, width, bias=False)
        self.o_proj = nn.Linear(width, dim, bias=False)
        self.q_norm = nn.LayerNorm(spec.head_dim) if spec.qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(spec.head_dim) if spec.qk_norm else nn.Identity()

    def forward(self, latents: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """Latents (V, latents, D) attend to context (V, n, D) and to themselves, where the mask (V, 1, 1, n + latents) lets them."""
        latents = self.latents_norm(latents)
        seen = torch.cat([self.context_norm(context), latents], dim=1)
        queries, keys, values = (
            rearrange(tokens, "v n (heads d) -> v heads n d", d=self.head_dim)
            for tokens in (self.q_proj(latents), self.k_proj(seen), self.v_proj(seen))
        )
        attended = functional.scaled_dot_product_attention(self.q_norm(queries), self.k_norm(keys), values, attn_mask=mask)
        out: Tensor = self.o_proj(rearrange(attended, "v heads n d -> v n (heads d)"))
        return out
