"""The tower of `mllama`: the tiles of a picture in one row, blank ones included."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.encoders.mllama import Mllama
from vlmkit.encoders.packed import PackedTower
from vlmkit.encoders.projection import project
from vlmkit.features import Grid, View, tiles_together


def build(spec: Mllama) -> MllamaTower:
    return MllamaTower(spec, spec.make())


class MllamaTower(PackedTower):
    """transformers' modules under transformers' names."""

    def __init__(self, spec: Mllama, model: Any) -> None:
        super().__init__(spec)
        self.class_embedding: nn.Parameter = model.class_embedding
        self.patch_embedding: nn.Module = model.patch_embedding
        self.gated_positional_embedding: nn.Module = model.gated_positional_embedding
        self.pre_tile_positional_embedding: nn.Module = model.pre_tile_positional_embedding
        self.post_tile_positional_embedding: nn.Module = model.post_tile_positional_embedding
        self.layernorm_pre: nn.Module = model.layernorm_pre
        self.layernorm_post: nn.Module = model.layernorm_post
        self.transformer: Any = model.transformer
        self.global_transformer: Any = model.global_transformer

    def beside(self, views: tuple[View, ...]) -> tuple[Grid, ...]:
        spec: Mllama = self.spec
        blank = spec.tiles * len(tiles_together(views)) - len(views)
        return (spec.grid_out(spec.native_grid),) * blank

    def encode(self, patches: Tensor, views: tuple[View, ...]) -> Tensor:
        """(N, 3*p*p), views -> the tokens of all views, then those of each picture's blank tiles."""
        spec: Mllama = self.spec
        pictures = tiles_together(views)
        canvases = [spec.canvas(views[tiles.start : tiles.stop]) for tiles in pictures]
        ids = torch.tensor([[1 + spec.canvases.index(canvas)] for canvas in canvases]).to(patches.device, non_blocking=True)
        # (I, tiles, n, D): blank tiles are zeros, for the patch embedding has no bias.
        embedded = project(self.patch_embedding, patches).view(len(views), -1, spec.width)
        tokens = torch.stack(
            [functional.pad(embedded[tiles.start : tiles.stop], (0, 0, 0, 0, 0, spec.tiles - len(tiles))) for tiles in pictures]
        )
        tokens = self.pre_tile_positional_embedding(tokens, ids)
        tokens = torch.cat([self.class_embedding.expand(*tokens.shape[:2], 1, -1), tokens], dim=2)
        tokens = self.layernorm_pre(self.gated_positional_embedding(tokens, ids))
        length, padding = tokens.shape[2], -tokens.shape[2] % 8
        reach = tuple(len(tiles) * length for tiles in pictures)
        tokens = functional.pad(tokens.flatten(1, 2), (0, 0, 0, spec.tiles * padding))
        states = []
        for depth, block in enumerate(self.transformer.layers, start=1):
            tokens = self.run(block, tokens, reach)
            if depth in spec.selected:
                states.append(tokens)
        tokens = self.layernorm_post(tokens)
        own, zeros = (part.unflatten(1, (spec.tiles, -1)) for part in tokens.split([spec.tiles * length, spec.tiles * padding], dim=1))
        moved = self.post_tile_positional_embedding(torch.cat([own, zeros], dim=2), ids)
        tokens = torch.cat([moved[:, :, :length].flatten(1, 2), moved[:, :, length:].flatten(1, 2)], dim=1)
        for block in self.global_transformer.layers:
            tokens = self.run(block, tokens, reach)
        chosen = dict(zip(sorted(set(spec.selected)), states, strict=True))
        features = torch.cat([tokens, torch.stack([chosen[depth] for depth in spec.selected], dim=-1).flatten(2)], dim=-1)
        end = spec.tiles * length
        own = [picture[:count] for picture, count in zip(features, reach, strict=True)]
        blank = [picture[count:end] for picture, count in zip(features, reach, strict=True)]
        return torch.cat([*own, *blank])
