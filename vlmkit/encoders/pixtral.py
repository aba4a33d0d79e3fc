"""Pixtral's vision transformer (Agrawal et al. 2024, arXiv:2410.07073) as transformers' PixtralVisionModel computes it.

Made for images of any size: positions rotate queries and keys and are no table, so a grid needs no resampling. A norm
stands before the blocks and none after them; norms are RMSNorm, MLPs are gated, nothing has a bias.

Published code packs all images into one sequence under a block-diagonal mask. Here views of one grid share a batch, where
every row is such a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from vlmkit.encoders import encoders
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD
from vlmkit.encoders.hf import Activation, TransformersEncoder, TransformersTower
from vlmkit.encoders.tower import Tower
from vlmkit.features import Grid
from vlmkit.spec import SpecError


@encoders.register("pixtral")
@dataclass(frozen=True, kw_only=True)
class Pixtral(TransformersEncoder):
    """The defaults are the numbers of the tower in mistralai/Pixtral-12B-2409."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp: int = 4096
    patch: int = 16
    activation: Activation = "silu"
    """Of the gate. transformers' config class has "gelu" by default; the published model is trained with "silu"."""
    theta: float = 10000.0
    """Base of the rotary frequencies."""
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    blocks_at: ClassVar[str] = "transformer.layers"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width // self.heads % 4:
            raise SpecError(f"pixtral.heads: {self.width // self.heads} channels a head, expected a multiple of 4: two axes of pairs")

    @staticmethod
    def model_class() -> Any:
        from transformers import PixtralVisionModel

        return PixtralVisionModel

    def numbers(self) -> dict[str, Any]:
        return super().numbers() | {"rope_parameters": {"rope_type": "axial", "rope_theta": self.theta}}

    @classmethod
    def from_config(cls, config: Any, **fields: Any) -> Self:
        return super().from_config(config, theta=float(config.rope_parameters["rope_theta"]), **fields)

    def build(self) -> Tower:
        return PixtralTower(self, self.make())


class PixtralTower(TransformersTower):
    spec: Pixtral

    def __init__(self, spec: Pixtral, model: Any) -> None:
        super().__init__(spec)
        self.patch_conv: nn.Module = model.patch_conv
        self.ln_pre: nn.Module = model.ln_pre
        self.transformer: nn.Module = model.transformer

    def encode(self, images: Tensor, grid: Grid) -> Tensor:
        tokens = self.ln_pre(self.patch_conv(images).flatten(2).transpose(1, 2))
        angles = rotary_angles(grid, self.spec.width // self.spec.heads, self.spec.theta, tokens.device)
        rotation = angles.cos().to(tokens.dtype), angles.sin().to(tokens.dtype)
        blocks = [partial(layer, position_embeddings=rotation) for layer in self.layers]
        return self.selected(blocks, tokens, None)


def rotary_angles(grid: Grid, dim: int, theta: float, device: torch.device) -> Tensor:
    """Angles (rows * columns, dim) that a head of `dim` channels is rotated by, in float32.

    Of the dim / 2 frequencies theta^(-2k / dim), k = 0, 1, ..., those of even k turn with the row and those of odd k with the
    column. The second half of the channels, each the partner of one in the first, repeats the angles of the first.
    """
    frequencies = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim)
    rows = torch.arange(grid.rows, dtype=torch.float32, device=device)[:, None] * frequencies[0::2]
    columns = torch.arange(grid.columns, dtype=torch.float32, device=device)[:, None] * frequencies[1::2]
    both = [rows[:, None].expand(-1, grid.columns, -1), columns[None].expand(grid.rows, -1, -1)]
    return torch.cat([*both, *both], dim=-1).flatten(0, 1)
