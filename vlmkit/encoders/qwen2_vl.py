"""Qwen2-VL's vision transformer (Wang et al. 2024, arXiv:2409.12191) as transformers' Qwen2VisionTransformerPretrainedModel computes it
up to its last block; the merger behind that is a connector, `patch_merger`.

Made for pictures of any size and for films. A patch is two frames of 14x14 pixels; of a picture it is the picture twice. Positions
rotate queries and keys by row and column, whichever frame it is, and each frame attends to itself alone. Published code orders patches
by the 2x2 blocks that are merged later, vlmkit row by row: attention does not see the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.encoders import encoders
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD
from vlmkit.encoders.hf import Activation, TransformersEncoder
from vlmkit.encoders.rotary import rotated, turns
from vlmkit.encoders.tower import Tower, ViTTower
from vlmkit.features import Features, Grid, GridError, View
from vlmkit.spec import SpecError


@encoders.register("qwen2_vl")
@dataclass(frozen=True, kw_only=True)
class Qwen2VL(TransformersEncoder):
    """The defaults are the numbers of the tower in Qwen/Qwen2-VL-7B-Instruct, which is that of 2B and 72B as well."""

    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp: int = 5120
    patch: int = 14
    activation: Activation = "quick_gelu"
    theta: float = 10000.0
    """Base of the rotary frequencies."""
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    clips: ClassVar[bool] = True
    patch_frames: ClassVar[int] = 2
    blocks_at: ClassVar[str] = "blocks"
    inside: ClassVar[dict[str, str] | None] = {r"^(model\.)?visual\.": ""}
    names: ClassVar[dict[str, str]] = {
        "width": "embed_dim",
        "layers": "depth",
        "heads": "num_heads",
        "patch": "patch_size",
        "activation": "hidden_act",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width // self.heads % 4:
            raise SpecError(f"qwen2_vl.heads: {self.width // self.heads} channels a head, expected a multiple of 4: two axes of pairs")
        if self.mlp % self.width:
            raise SpecError(f"qwen2_vl.mlp: {self.mlp} hidden channels, expected a multiple of the width {self.width}")

    @property
    def kernel(self) -> tuple[int, int, int]:
        """Frames, rows and columns of pixels of a patch."""
        return (self.patch_frames, self.patch, self.patch)

    def grid_out(self, grid: Grid) -> Grid:
        if grid.prefix:
            raise GridError(f"encoder {self.kind!r} sees patches alone, but the grid is {grid}")
        return grid

    @staticmethod
    def model_class() -> Any:
        from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

        return Qwen2VisionTransformerPretrainedModel

    def numbers(self) -> dict[str, Any]:
        rotary = {"rope_type": "axial", "rope_theta": self.theta}
        return super().numbers() | {
            "mlp_ratio": self.mlp // self.width,
            "temporal_patch_size": self.patch_frames,
            "rope_parameters": rotary,
        }

    @classmethod
    def from_config(cls, config: Any, **fields: Any) -> Self:
        if config.in_channels != 3 or config.temporal_patch_size != cls.patch_frames:
            raise SpecError(
                f"encoder {cls.kind!r} has patches of 3 colours and {cls.patch_frames} frames, but the config states "
                f"{config.in_channels} and {config.temporal_patch_size}"
            )
        numbers = {"mlp": config.embed_dim * config.mlp_ratio, "theta": float(config.rope_parameters["rope_theta"])}
        return super().from_config(config, **(numbers | fields))

    def make(self) -> Any:
        """Blocks alone are taken of it: its merger is as small as one can be."""
        cls = self.model_class()
        least = {"hidden_size": 1, "spatial_merge_size": 1}
        return cls(cls.config_class(**self.numbers() | least | {"depth": self.blocks}, attn_implementation=self.attention))

    def needs(self, name: str) -> bool:
        return super().needs(name) and not name.startswith("merger.")

    def build(self) -> Tower:
        return Qwen2VLTower(self, self.make())


class Qwen2VLTower(ViTTower):
    """transformers' weights under transformers' names; blocks and attention are vlmkit's."""

    spec: Qwen2VL

    def __init__(self, spec: Qwen2VL, model: Any) -> None:
        super().__init__(spec)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = PatchConv3d(3, spec.width, spec.kernel, spec.kernel, bias=False)
        self.blocks = nn.ModuleList([Block(block, spec.heads) for block in model.blocks])

    def encode(self, patches: Tensor, views: tuple[View, ...]) -> Tensor:
        """(N, 3*t*p*p) -> (N, D_v), all views in one row."""
        tokens = self.patch_embed.proj(patches)[None]
        grids = [view.grid for view in views]
        tables = {grid: turns(grid, self.spec.width // self.spec.heads, self.spec.theta, tokens.device) for grid in dict.fromkeys(grids)}
        rotation = tuple(torch.cat([tables[grid][which] for grid in grids]) for which in (0, 1))
        lengths = [grid.rows * grid.columns for grid in grids for _ in range(grid.frames)]
        blocks = [partial(block, rotation=rotation, lengths=lengths) for block in self.blocks]
        return self.selected(blocks, tokens, None)[0]

    def forward(self, pixel_values, views):
        views = tuple(v if isinstance(v, View) else View(v) for v in (views if isinstance(views, tuple) else [Grid(*r) for r in views.tolist()]))
        grids = tuple(v.grid for v in views)
        x = self.normalise(pixel_values)
        return Features(self.encode(x, views), grids)

    def normalise(self, pixel_values):
        if pixel_values.is_floating_point():
            return pixel_values.to(self.dtype)
        mean = torch.tensor(self.spec.mean, device=pixel_values.device)
        std = torch.tensor(self.spec.std, device=pixel_values.device)
        each = self.spec.values // 3
        scale = (1 / (255 * std)).repeat_interleave(each)
        shift = (-mean / std).repeat_interleave(each)
        return torch.addcmul(shift, pixel_values.float(), scale).to(self.dtype)


class PatchConv3d(nn.Conv3d):
    """A convolution whose stride is its kernel, over patches that are cut already: one matrix product."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, 3*t*p*p) -> (N, D_v)"""
        return functional.linear(input, self.weight.flatten(1), self.bias)


class Block(nn.Module):
    """A norm before attention, a norm before the MLP."""

    def __init__(self, block: Any, heads: int) -> None:
        super().__init__()
        self.norm1: nn.Module = block.norm1
        self.norm2: nn.Module = block.norm2
        self.attn = Attention(block.attn, heads)
        self.mlp: nn.Module = block.mlp

    def forward(self, tokens: Tensor, rotation: tuple[Tensor, Tensor], lengths: list[int]) -> Tensor:
        """(1, N, D) -> (1, N, D)"""
        tokens = tokens + self.attn(self.norm1(tokens), rotation, lengths)
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class Attention(nn.Module):
    def __init__(self, attention: Any, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv: nn.Module = attention.qkv
        self.proj: nn.Module = attention.proj

    def forward(self, tokens: Tensor, rotation: tuple[Tensor, Tensor], lengths: list[int]) -> Tensor:
        """(1, N, D) -> (1, N, D); rotation: cosines and sines (N, channels of a head); lengths: tokens of each frame."""
        queries, keys, values = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys = rotated(queries, rotation), rotated(keys, rotation)
        if len(set(lengths)) == 1:
            q, k, v = (x[0].unflatten(1, (len(lengths), -1)).transpose(0, 1) for x in (queries, keys, values))
            seen = functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1, 2)[None]
        else:
            seen = torch.cat([functional.scaled_dot_product_attention(q, k, v) for q, k, v in zip(*(x.split(lengths, dim=2) for x in (queries, keys, values)), strict=True)], dim=2)
        out: Tensor = self.proj(seen.transpose(1, 2).flatten(2))
        return out
