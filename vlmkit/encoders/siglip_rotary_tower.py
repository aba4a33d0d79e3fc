"""The tower of `siglip_rotary`: transformers' weights in blocks that keep each frame to itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from vlmkit.encoders.projection import project
from vlmkit.encoders.rotary_tower import RotaryAttention, RotaryTower
from vlmkit.encoders.segments import Segments
from vlmkit.encoders.siglip_rotary import SiglipRotary
from vlmkit.features import View


def build(spec: SiglipRotary) -> SiglipRotaryTower:
    return SiglipRotaryTower(spec, spec.make())


class SiglipRotaryTower(RotaryTower):
    """transformers' weights under transformers' names; blocks and attention are vlmkit's."""

    def __init__(self, spec: SiglipRotary, model: Any) -> None:
        super().__init__(spec)
        self.embeddings: Any = model.embeddings
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList([Block(layer, spec) for layer in model.encoder.layers])})
        self.post_layernorm: nn.Module = model.post_layernorm

    @property
    def layers(self) -> nn.ModuleList:
        layers = self.encoder["layers"]
        assert isinstance(layers, nn.ModuleList)
        return layers

    def unused(self) -> Iterator[nn.Module]:
        yield from self.layers[max(self.spec.depths) :]

    def embed(self, patches: Tensor) -> Tensor:
        return project(self.embeddings.patch_embedding, patches)

    def run_blocks(self, tokens: Tensor, segments: Segments, views: tuple[View, ...]) -> Tensor:
        return self.selected(self.layers, tokens, self.post_layernorm, self.rotation(tokens, segments, views), segments)


class Block(nn.Module):
    """A norm before attention, a norm before the MLP."""

    def __init__(self, layer: Any, spec: SiglipRotary) -> None:
        super().__init__()
        self.layer_norm1: nn.Module = layer.layer_norm1
        self.self_attn = Attention(layer.self_attn, spec)
        self.layer_norm2: nn.Module = layer.layer_norm2
        self.mlp: nn.Module = layer.mlp

    def forward(self, tokens: Tensor, rotation: tuple[Tensor, Tensor], segments: Segments) -> Tensor:
        """(V, n, D) -> (V, n, D)"""
        tokens = tokens + self.self_attn(self.layer_norm1(tokens), rotation, segments)
        out: Tensor = tokens + self.mlp(self.layer_norm2(tokens))
        return out


class Attention(RotaryAttention):
    def __init__(self, attention: Any, spec: SiglipRotary) -> None:
        super().__init__(spec)
        self.k_proj: nn.Module = attention.k_proj
        self.v_proj: nn.Module = attention.v_proj
        self.q_proj: nn.Module = attention.q_proj
        self.out_proj: nn.Module = attention.out_proj

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = (
            projection(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return queries, keys, values

    def join(self, seen: Tensor) -> Tensor:
        out: Tensor = self.out_proj(seen)
        return out
