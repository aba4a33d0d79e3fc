"""SigLIP (Zhai et al. 2023, arXiv:2303.15343) for images of any size: positions rotate queries and keys and are no table.

VideoLLaMA 3's tower (Zhang et al. 2025, arXiv:2501.13106), as transformers' VideoLlama3VisionModel computes it up to the norm after the
last block. That model then shrinks the grid, which here is the connector's part. Each frame of a film attends to itself alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.encoders import encoders
from vlmkit.encoders.base import HALF
from vlmkit.encoders.hf import Activation, TransformersEncoder
from vlmkit.encoders.tower import Tower, ViTTower
from vlmkit.features import Grid, GridError
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

    def build(self) -> Tower:
        return SiglipRotaryTower(self, self.make())


class SiglipRotaryTower(ViTTower):
    """transformers' weights under transformers' names; blocks and attention are vlmkit's."""

    spec: SiglipRotary

    def __init__(self, spec: SiglipRotary, model: Any) -> None:
        super().__init__(spec)
        self.embeddings: Any = model.embeddings
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList([Block(layer, spec.heads) for layer in model.encoder.layers])})
        self.post_layernorm: nn.Module = model.post_layernorm

    @property
    def layers(self) -> nn.ModuleList:
        layers = self.encoder["layers"]
        assert isinstance(layers, nn.ModuleList)
        return layers

    def encode(self, images: Tensor, grid: Grid) -> Tensor:
        tokens = self.embeddings.patch_embedding(images).flatten(2).transpose(1, 2)
        rotation = turns(grid, self.spec.width // self.spec.heads, self.spec.theta, tokens.device)
        blocks = [partial(block, rotation=rotation) for block in self.layers]
        return self.selected(blocks, tokens, self.post_layernorm)


class Block(nn.Module):
    """A norm before attention, a norm before the MLP."""

    def __init__(self, layer: Any, heads: int) -> None:
        super().__init__()
        self.layer_norm1: nn.Module = layer.layer_norm1
        self.self_attn = Attention(layer.self_attn, heads)
        self.layer_norm2: nn.Module = layer.layer_norm2
        self.mlp: nn.Module = layer.mlp

    def forward(self, tokens: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """(B, n, D) -> (B, n, D)"""
        tokens = tokens + self.self_attn(self.layer_norm1(tokens), rotation)
        out: Tensor = tokens + self.mlp(self.layer_norm2(tokens))
        return out


class Attention(nn.Module):
    def __init__(self, attention: Any, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj: nn.Module = attention.k_proj
        self.v_proj: nn.Module = attention.v_proj
        self.q_proj: nn.Module = attention.q_proj
        self.out_proj: nn.Module = attention.out_proj

    def forward(self, tokens: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """(B, n, D) -> (B, n, D); rotation: cosines and sines (B or 1, n, channels of a head)."""
        queries, keys, values = (
            projection(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        seen = functional.scaled_dot_product_attention(rotated(queries, rotation), rotated(keys, rotation), values)
        out: Tensor = self.out_proj(seen.transpose(1, 2).flatten(2))
        return out


def turns(grid: Grid, dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (1, rows * columns, dim) that a head of `dim` channels is rotated by, in float32.

    Both axes have the dim / 4 frequencies theta^(-4k / dim), k = 0, 1, ...: first those of the row, then those of the column. The second
    half of the channels, each the partner of one in the first, repeats the angles of the first.
    """
    frequencies = 1.0 / theta ** (torch.arange(0, dim // 2, 2, dtype=torch.float32, device=device) / (dim // 2))
    rows, columns = (torch.arange(count, dtype=torch.float32, device=device)[:, None] * frequencies for count in (grid.rows, grid.columns))
    both = [rows[:, None].expand(-1, grid.columns, -1), columns[None].expand(grid.rows, -1, -1)]
    angles = torch.cat([*both, *both], dim=-1).flatten(0, 1)[None]
    return angles.cos(), angles.sin()


def rotated(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """(B, heads, n, channels) turned in float32: each channel of the first half with its partner in the second."""
    cosines, sines = (values[:, None] for values in rotation)
    first, second = heads.float().chunk(2, dim=-1)
    return (heads.float() * cosines + torch.cat([-second, first], dim=-1) * sines).to(heads.dtype)
