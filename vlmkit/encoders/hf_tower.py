"""What towers share whose layers are transformers': layers under their names, behind vlmkit's embeddings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vlmkit.encoders.base import Positions
from vlmkit.encoders.hf import TransformersViT
from vlmkit.encoders.packed import Block, PackedTower, in_a_row
from vlmkit.encoders.positions import resample
from vlmkit.encoders.projection import project
from vlmkit.encoders.segments import Segments
from vlmkit.features import View


class TransformersTower(PackedTower):
    """transformers' layers under transformers' names."""

    @property
    def layers(self) -> nn.ModuleList:
        layers = self.get_submodule(self.spec.blocks_at)
        assert isinstance(layers, nn.ModuleList)
        return layers

    def unused(self) -> Iterator[nn.Module]:
        yield from self.layers[max(self.spec.depths) :]

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        super().set_gradient_checkpointing(enabled)
        layer: Any
        for layer in self.layers:
            layer.gradient_checkpointing = enabled
            layer._gradient_checkpointing_func = self._gradient_checkpointing_func

    def run(self, block: Block, tokens: Tensor, *arguments: Any) -> Tensor:
        # transformers' layers recompute themselves.
        out: Tensor = block(tokens, *arguments)
        return out


class TransformersViTTower(TransformersTower):
    """transformers' layers behind vlmkit's embeddings."""

    def __init__(self, spec: TransformersViT, model: Any) -> None:
        super().__init__(spec)
        self.prefix = spec.class_positions
        self.prefix_dropped = spec.class_positions - spec.prefix_kept
        self.embeddings = Embeddings(spec, model.embeddings)
        self.encoder: nn.Module = model.encoder
        self.post_layernorm: nn.Module | None = model.post_layernorm if spec.final_norm or spec.keep_unused else None

    def unused(self) -> Iterator[nn.Module]:
        yield from super().unused()
        if self.post_layernorm is not None and not self.spec.final_norm:
            yield self.post_layernorm

    def tokens(self, patches: Tensor, views: tuple[View, ...], segments: Segments) -> Tensor:
        found: Tensor = self.embeddings(patches, views, segments)
        return found

    def run_blocks(self, tokens: Tensor, segments: Segments, views: tuple[View, ...]) -> Tensor:
        return self.selected(self.layers, tokens, self.post_layernorm if self.spec.final_norm else None, segments)


class Embeddings(nn.Module):
    """Patches, class token and resampled positions, with the parameters of transformers' module of the same name."""

    def __init__(self, spec: TransformersViT, made: Any) -> None:
        super().__init__()
        self.native = replace(spec.native_grid, prefix=spec.class_positions)
        self.filter: Positions = spec.positions
        if spec.class_positions:
            self.class_embedding: nn.Parameter = made.class_embedding
        self.patch_embedding: nn.Module = made.patch_embedding
        self.position_embedding: nn.Module = made.position_embedding

    def forward(self, patches: Tensor, views: tuple[View, ...], segments: Segments) -> Tensor:
        """Patches (N, 3*p*p) -> (V, class + rows * columns, D), or (1, N + V, D) of different views."""
        table = self.position_embedding(torch.arange(self.native.tokens, device=patches.device))
        return in_a_row(
            self.project(patches),
            views,
            segments,
            lambda grid: resample(table, self.native, grid, self.filter),
            self.class_embedding[None] if self.native.prefix else None,
        )

    def project(self, patches: Tensor) -> Tensor:
        """Patches (N, 3*p*p) -> (N, D)."""
        return project(self.patch_embedding, patches)
