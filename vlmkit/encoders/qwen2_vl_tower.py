"""The tower of `qwen2_vl`: transformers' weights in blocks that keep each frame to itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from vlmkit.encoders.projection import project
from vlmkit.encoders.qwen2_vl import Qwen2VL
from vlmkit.encoders.rotary_tower import RotaryAttention, RotaryTower
from vlmkit.encoders.segments import Segments
from vlmkit.features import View


def build(spec: Qwen2VL) -> Qwen2VLTower:
    return Qwen2VLTower(spec, spec.make())


class Qwen2VLTower(RotaryTower):
    """transformers' weights under transformers' names; blocks and attention are vlmkit's."""

    def __init__(self, spec: Qwen2VL, model: Any) -> None:
        super().__init__(spec)
        self.patch_embed = nn.ModuleDict({"proj": model.patch_embed.proj})
        self.blocks = nn.ModuleList([Block(block, spec) for block in model.blocks])

    def unused(self) -> Iterator[nn.Module]:
        yield from self.blocks[max(self.spec.depths) :]

    def embed(self, patches: Tensor) -> Tensor:
        return project(self.patch_embed["proj"], patches)

    def run_blocks(self, tokens: Tensor, segments: Segments, views: tuple[View, ...]) -> Tensor:
        return self.selected(self.blocks, tokens, None, self.rotation(tokens, segments, views), segments)


class Block(nn.Module):
    """A norm before attention, a norm before the MLP."""

    def __init__(self, block: Any, spec: Qwen2VL) -> None:
        super().__init__()
        self.norm1: nn.Module = block.norm1
        self.norm2: nn.Module = block.norm2
        self.attn = Attention(block.attn, spec)
        self.mlp: nn.Module = block.mlp

    def forward(self, tokens: Tensor, rotation: tuple[Tensor, Tensor], segments: Segments) -> Tensor:
        """(V, n, D) or (1, N, D) -> the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens), rotation, segments)
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class Attention(RotaryAttention):
    def __init__(self, attention: Any, spec: Qwen2VL) -> None:
        super().__init__(spec)
        self.qkv: nn.Module = attention.qkv
        self.proj: nn.Module = attention.proj

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return queries, keys, values

    def join(self, seen: Tensor) -> Tensor:
        out: Tensor = self.proj(seen)
        return out
