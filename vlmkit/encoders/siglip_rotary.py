"""SigLIP (Zhai et al. 2023, arXiv:2303.15343) for images of any size: positions rotate queries and keys and are no table.

VideoLLaMA 3's tower (Zhang et al. 2025, arXiv:2501.13106), as transformers' VideoLlama3VisionModel computes it up to the norm after the
last block. That model then shrinks the grid, which here is the connector's part. Each frame of a film attends to itself alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.encoders import encoders
from vlmkit.encoders.base import HALF
from vlmkit.encoders.hf import Activation, TransformersEncoder
from vlmkit.encoders.packed import PackedTower
from vlmkit.encoders.projection import project
from vlmkit.encoders.segments import Attend, Segments, attend, eager
from vlmkit.features import Grid, GridError, View
from vlmkit.spec import SpecError


@encoders.register("siglip_rotary")
@dataclass(frozen=True, kw_only=True)
class SiglipRotary(TransformersEncoder):
    """The defaults are the numbers of the tower in DAMO-NLP-SG/VideoLLaMA3-7B, which is SigLIP-so400m's but for the positions. The norm
    after the last block is applied to every selected layer."""

    width: int = 1152
    layers: int = 27
    heads: int = 16
    mlp: int = 4304
    patch: int = 14
    activation: Activation = "gelu_pytorch_tanh"
    norm_eps: float = 1e-6
    theta: float = 10000.0
    """Base of the rotary frequencies."""
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF

    clips: ClassVar[bool] = True
    names: ClassVar[dict[str, str]] = TransformersEncoder.names | {"norm_eps": "layer_norm_eps"}
    blocks_at: ClassVar[str] = "encoder.layers"
    headless: ClassVar[dict[str, Any]] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width // self.heads % 4:
            raise SpecError(f"siglip_rotary.heads: {self.width // self.heads} channels a head, expected a multiple of 4: two axes of pairs")

    def grid_out(self, grid: Grid) -> Grid:
        if grid.prefix:
            raise GridError(f"encoder {self.kind!r} sees patches alone, but the grid is {grid}")
        return grid

    @staticmethod
    def model_class() -> Any:
        from transformers import VideoLlama3VisionModel

        return VideoLlama3VisionModel

    def numbers(self) -> dict[str, Any]:
        return super().numbers() | {"rope_parameters": {"rope_type": "axial", "rope_theta": self.theta}}

    @classmethod
    def from_config(cls, config: Any, **fields: Any) -> Self:
        return super().from_config(config, theta=float(config.rope_parameters["rope_theta"]), **fields)

    def build(self) -> SiglipRotaryTower:
        return SiglipRotaryTower(self, self.make())


class SiglipRotaryTower(PackedTower):
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

    def encode(self, patches: Tensor, views: tuple[View, ...]) -> Tensor:
        frames = tuple(view._replace(grid=replace(view.grid, frames=1)) for view in views for _ in range(view.grid.frames))
        return super().encode(patches, frames)

    def run_blocks(self, tokens: Tensor, segments: Segments, views: tuple[View, ...]) -> Tensor:
        head = self.spec.width // self.spec.heads
        found = {grid: turns(grid, head, self.spec.theta, tokens.device) for grid in dict.fromkeys(view.grid for view in views)}
        cosines, sines = zip(*(found[view.grid] for view in views), strict=True)
        rotation = found[views[0].grid] if segments.equal else (torch.cat(cosines), torch.cat(sines))
        return self.selected(self.layers, tokens, self.post_layernorm, rotation, segments)


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


class Attention(nn.Module):
    def __init__(self, attention: Any, spec: SiglipRotary) -> None:
        super().__init__()
        self.heads = spec.heads
        self.one_size: Attend = eager if spec.attention == "eager" else functional.scaled_dot_product_attention
        self.k_proj: nn.Module = attention.k_proj
        self.v_proj: nn.Module = attention.v_proj
        self.q_proj: nn.Module = attention.q_proj
        self.out_proj: nn.Module = attention.out_proj

    def forward(self, tokens: Tensor, rotation: tuple[Tensor, Tensor], segments: Segments) -> Tensor:
        """(V, n, D), or (1, N, D) with different segments -> the same shape; rotation: cosines and sines (n or N, channels of a head)."""
        queries, keys, values = (
            projection(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        seen = attend(rotated(queries, rotation), rotated(keys, rotation), values, segments, self.one_size)
        out: Tensor = self.out_proj(seen.transpose(1, 2).flatten(2))
        return out


def turns(grid: Grid, dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (rows * columns, dim) that a head of `dim` channels is rotated by, in float32.

    Both axes have the dim / 4 frequencies theta^(-4k / dim), k = 0, 1, ...: first those of the row, then those of the column. The second
    half of the channels, each the partner of one in the first, repeats the angles of the first.
    """
    frequencies = 1.0 / theta ** (torch.arange(0, dim // 2, 2, dtype=torch.float32, device=device) / (dim // 2))
    rows, columns = (torch.arange(count, dtype=torch.float32, device=device)[:, None] * frequencies for count in (grid.rows, grid.columns))
    both = [rows[:, None].expand(-1, grid.columns, -1), columns[None].expand(grid.rows, -1, -1)]
    angles = torch.cat([*both, *both], dim=-1).flatten(0, 1)
    return angles.cos(), angles.sin()


def rotated(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """(V, heads, n, channels) turned in float32: each channel of the first half with its partner in the second."""
    cosines, sines = rotation
    first, second = heads.float().chunk(2, dim=-1)
    return (heads.float() * cosines + torch.cat([-second, first], dim=-1) * sines).to(heads.dtype)
