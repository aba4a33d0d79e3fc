"""Pixtral's vision transformer (Agrawal et al. 2024, arXiv:2410.07073) as transformers' PixtralVisionModel computes it.

Made for images of any size: positions rotate queries and keys and are no table, so a grid needs no resampling. A norm
stands before the blocks and none after them; norms are RMSNorm, MLPs are gated, nothing has a bias.

Published code packs all images into one sequence under a block-diagonal mask; here attention stays within a view without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from vlmkit.activations import TransformersActivation
from vlmkit.encoders import encoders
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD
from vlmkit.encoders.hf import TransformersTower
from vlmkit.encoders.projection import project
from vlmkit.encoders.rotary import RotaryEncoder
from vlmkit.encoders.segments import Segments
from vlmkit.features import Grid, View
from vlmkit.spec import SpecError


@encoders.register("pixtral")
@dataclass(frozen=True, kw_only=True)
class Pixtral(RotaryEncoder):
    """The defaults are the numbers of the tower in mistralai/Pixtral-12B-2409."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp: int = 4096
    patch: int = 16
    activation: TransformersActivation = "silu"
    """Of the gate. transformers' config class has "gelu" by default; the published model is trained with "silu"."""
    theta: float = 10000.0
    """Base of the rotary frequencies."""
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    blocks_at: ClassVar[str] = "transformer.layers"

    @classmethod
    def from_config(cls, config: Any, **fields: Any) -> Self:
        """The spec of a transformers vision config. Raises SpecError for a `head_dim` of its own, with which transformers' class fails."""
        spec = super().from_config(config, **fields)
        if config.head_dim != spec.width // spec.heads:
            raise SpecError(f"head_dim: {spec.heads} heads of {spec.width} channels have {spec.width // spec.heads}, not {config.head_dim}")
        return spec

    @staticmethod
    def model_class() -> Any:
        from transformers import PixtralVisionModel

        return PixtralVisionModel

    def build(self) -> PixtralTower:
        return PixtralTower(self, self.make())


class PixtralTower(TransformersTower):
    def __init__(self, spec: Pixtral, model: Any) -> None:
        super().__init__(spec)
        self.patch_conv: nn.Module = model.patch_conv
        self.ln_pre: nn.Module = model.ln_pre
        self.transformer: nn.Module = model.transformer

    def embed(self, patches: Tensor) -> Tensor:
        return project(self.patch_conv, patches)

    def before(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.ln_pre(tokens)
        return normed

    def run_blocks(self, tokens: Tensor, segments: Segments, views: tuple[View, ...]) -> Tensor:
        head = self.spec.width // self.spec.heads
        found = {grid: rotary_angles(grid, head, self.spec.theta, tokens.device) for grid in dict.fromkeys(view.grid for view in views)}
        angles = found[views[0].grid] if segments.equal else torch.cat([found[view.grid] for view in views])
        rotation = angles.cos().to(tokens.dtype), angles.sin().to(tokens.dtype)
        return self.selected([partial(layer, position_embeddings=rotation) for layer in self.layers], tokens, None, segments)


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
