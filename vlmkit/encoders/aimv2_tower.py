"""The tower of `aimv2`: transformers' layers behind embeddings of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vlmkit.connectors.positions import sincos_2d
from vlmkit.encoders.aimv2 import Aimv2
from vlmkit.encoders.hf_tower import TransformersTower
from vlmkit.encoders.packed import in_a_row
from vlmkit.encoders.positions import resample
from vlmkit.encoders.projection import project
from vlmkit.encoders.segments import Segments
from vlmkit.features import Grid, View


def build(spec: Aimv2) -> Aimv2Tower:
    return Aimv2Tower(spec, spec.make())


class Aimv2Tower(TransformersTower):
    def __init__(self, spec: Aimv2, model: Any) -> None:
        super().__init__(spec)
        self.embeddings = Aimv2Embeddings(spec, model.embeddings)
        self.encoder: nn.Module = model.encoder
        self.rms_norm: nn.Module | None = model.rms_norm if spec.final_norm or spec.keep_unused else None

    def unused(self) -> Iterator[nn.Module]:
        yield from super().unused()
        if self.rms_norm is not None and not self.spec.final_norm:
            yield self.rms_norm

    def tokens(self, patches: Tensor, views: tuple[View, ...], segments: Segments) -> Tensor:
        found: Tensor = self.embeddings(patches, views, segments)
        return found

    def run_blocks(self, tokens: Tensor, segments: Segments, views: tuple[View, ...]) -> Tensor:
        return self.selected(self.layers, tokens, self.rms_norm if self.spec.final_norm else None, segments)


class Aimv2Embeddings(nn.Module):
    """Patches, their norm and positions, with the parameters of transformers' module."""

    def __init__(self, spec: Aimv2, made: Any) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed: nn.Module = made.patch_embed
        self.rms_norm: nn.Module = made.rms_norm
        if spec.table == "learned":
            self.position_embedding: nn.Module = made.position_embedding

    def forward(self, patches: Tensor, views: tuple[View, ...], segments: Segments) -> Tensor:
        """Patches (N, 3*p*p) -> (V, rows * columns, D), or (1, N, D) of different views."""
        tokens: Tensor = self.rms_norm(project(self.patch_embed, patches))
        return in_a_row(tokens, views, segments, self.positions(tokens), None)

    def positions(self, tokens: Tensor) -> Callable[[Grid], Tensor]:
        """Of a grid: sines and cosines, or the learned table resampled."""
        spec, native = self.spec, self.spec.native_grid
        if spec.table == "sincos":
            return lambda grid: sincos_2d(grid.rows, grid.columns, spec.width, device=tokens.device).to(tokens.dtype)
        table = self.position_embedding(torch.arange(native.tokens, device=tokens.device))
        return lambda grid: resample(table, native, grid, spec.positions)
