"""The tower of `pixtral`: transformers' layers, and the angles by which a head is rotated."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vlmkit.encoders.hf_tower import TransformersTower
from vlmkit.encoders.pixtral import Pixtral
from vlmkit.encoders.projection import project
from vlmkit.encoders.segments import Segments
from vlmkit.features import Grid, View


def build(spec: Pixtral) -> PixtralTower:
    return PixtralTower(spec, spec.make())


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
