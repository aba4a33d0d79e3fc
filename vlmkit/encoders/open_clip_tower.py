"""The tower of `open_clip`: its VisionTransformer taken apart, under its names."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import linear

from vlmkit.encoders.open_clip import OpenClip
from vlmkit.encoders.packed import PackedTower
from vlmkit.encoders.positions import resample
from vlmkit.encoders.projection import project
from vlmkit.encoders.segments import Segments, attend
from vlmkit.features import Grid, View


def build(spec: OpenClip) -> OpenClipTower:
    return OpenClipTower(spec)


class OpenClipTower(PackedTower):
    """open_clip's VisionTransformer, taken apart so that its table of positions can be resampled and views of all sizes run together."""

    def __init__(self, spec: OpenClip) -> None:
        from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer

        super().__init__(spec)
        self.prefix = 0 if spec.class_token == "none" else 1
        self.prefix_dropped = self.prefix - spec.prefix_kept
        vit = VisionTransformer(
            image_size=spec.image_size,
            patch_size=spec.patch,
            width=spec.width,
            layers=max(spec.depths),
            heads=spec.heads,
            mlp_ratio=spec.mlp_ratio,
            ls_init_value=spec.layer_scale,
            no_ln_pre=not spec.pre_norm,
            act_layer=QuickGELU if spec.activation == "quick_gelu" else nn.GELU,
            norm_layer=partial(LayerNorm, eps=spec.norm_eps),
            output_dim=1,
        )
        self.conv1 = vit.conv1
        self.class_embedding = vit.class_embedding if self.prefix else None
        table = vit.positional_embedding
        self.positional_embedding = table if self.prefix else nn.Parameter(table.detach()[1:].clone())
        self.ln_pre = vit.ln_pre
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(Block(block) for block in vit.transformer.resblocks)})
        self.ln_post = vit.ln_post if spec.final_norm else None

    @property
    def resblocks(self) -> nn.ModuleList:
        blocks = self.transformer["resblocks"]
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    def embed(self, patches: Tensor) -> Tensor:
        return project(self.conv1, patches)

    def prefix_tokens(self) -> Tensor:
        assert self.class_embedding is not None
        token: Tensor = self.class_embedding[None]
        return token

    def positions(self, grid: Grid) -> Tensor:
        return resample(self.positional_embedding, replace(self.spec.native_grid, prefix=self.prefix), grid, self.spec.positions)

    def before(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.ln_pre(tokens)
        return normed

    def run_blocks(self, tokens: Tensor, segments: Segments, views: tuple[View, ...]) -> Tensor:
        return self.selected(self.resblocks, tokens, self.ln_post, segments)


class Block(nn.Module):
    """open_clip's residual block: its parts under its names, and an attention that stays within a view."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.ln_1, self.ls_1 = block.ln_1, block.ls_1
        self.attn = Attention(block.attn)
        self.ln_2, self.ls_2 = block.ln_2, block.ls_2
        self.mlp = block.mlp

    def forward(self, tokens: Tensor, segments: Segments) -> Tensor:
        """(V, n, D) or (1, N, D) -> the same shape."""
        tokens = tokens + self.ls_1(self.attn(self.ln_1(tokens), segments))
        out: Tensor = tokens + self.ls_2(self.mlp(self.ln_2(tokens)))
        return out


class Attention(nn.Module):
    """torch's MultiheadAttention with the same weights under the same names, whose last projection is called as the module that it is: so
    adapters, hooks and offloading reach it."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.in_proj_weight = attention.in_proj_weight
        self.in_proj_bias = attention.in_proj_bias
        with torch.device("meta"):  # it takes over weights, and draws none
            projection = nn.Linear(attention.embed_dim, attention.embed_dim)
        projection.weight, projection.bias = attention.out_proj.weight, attention.out_proj.bias
        self.out_proj = projection

    def forward(self, tokens: Tensor, segments: Segments) -> Tensor:
        """(V, n, D) or (1, N, D) -> the same shape."""
        projected = linear(tokens, self.in_proj_weight, self.in_proj_bias)
        queries, keys, values = rearrange(projected, "v n (three heads d) -> three v heads n d", three=3, heads=self.heads)
        attended = attend(queries, keys, values, segments)
        out: Tensor = self.out_proj(rearrange(attended, "v heads n d -> v n (heads d)"))
        return out
