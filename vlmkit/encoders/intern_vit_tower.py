"""The tower of `intern_vit`: transformers' layers behind embeddings of our own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from transformers.models.internvl.modeling_internvl import InternVLVisionLayer

from vlmkit.encoders.hf_tower import TransformersTower
from vlmkit.encoders.intern_vit import InternViT
from vlmkit.encoders.packed import in_a_row
from vlmkit.encoders.positions import resample
from vlmkit.encoders.projection import project
from vlmkit.encoders.segments import Segments
from vlmkit.features import View


def build(spec: InternViT) -> InternViTTower:
    return InternViTTower(spec, spec.make())


class InternViTTower(TransformersTower):
    def __init__(self, spec: InternViT, model: Any) -> None:
        super().__init__(spec)
        self.prefix = spec.class_positions
        self.prefix_dropped = spec.class_positions - spec.prefix_kept
        self.embeddings = InternEmbeddings(spec, model.embeddings)
        self.encoder: nn.Module = model.encoder
        for layer in self.layers:
            layer.__class__ = InternLayer
        if spec.final_norm:
            self.layernorm: nn.Module = model.layernorm

    def tokens(self, patches: Tensor, views: tuple[View, ...], segments: Segments) -> Tensor:
        found: Tensor = self.embeddings(patches, views, segments)
        return found

    def run_blocks(self, tokens: Tensor, segments: Segments, views: tuple[View, ...]) -> Tensor:
        return self.selected(self.layers, tokens, self.layernorm if self.spec.final_norm else None, segments)


class InternLayer(InternVLVisionLayer):  # type: ignore[misc]
    """transformers' layer hands its attention no mask, and so could not be told which tokens are one view."""

    def forward(self, hidden_states: Tensor, segments: Segments) -> Tensor:
        """(V, n, D), or (1, N, D) of different views -> the same."""
        attended, _ = self.attention(self.layernorm_before(hidden_states), segments)
        hidden_states = hidden_states + self.lambda_1 * attended
        out: Tensor = hidden_states + self.lambda_2 * self.mlp(self.layernorm_after(hidden_states))
        return out


class InternEmbeddings(nn.Module):
    """Patches, class token and resampled positions, with the parameters of transformers' module."""

    def __init__(self, spec: InternViT, made: Any) -> None:
        super().__init__()
        self.native = replace(spec.native_grid, prefix=1)
        self.filter = spec.positions
        self.cls_token: nn.Parameter = made.cls_token
        self.position_embeddings: nn.Parameter = made.position_embeddings
        self.patch_embeddings: nn.Module = made.patch_embeddings

    def forward(self, patches: Tensor, views: tuple[View, ...], segments: Segments) -> Tensor:
        """Patches (N, 3*p*p) -> (V, 1 + rows * columns, D), or (1, N + V, D) of different views."""
        convolution: Any = self.patch_embeddings.projection
        table = self.position_embeddings[0]
        return in_a_row(
            project(convolution, patches), views, segments, lambda grid: resample(table, self.native, grid, self.filter), self.cls_token[0]
        )
