"""Towers whose positions rotate queries and keys by row and column: attention, and the angles for views of any sizes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.encoders.packed import PackedTower
from vlmkit.encoders.rotary import RotaryEncoder
from vlmkit.encoders.segments import Attend, Segments, attend, eager
from vlmkit.features import Grid, View


class RotaryTower(PackedTower):
    """Each frame of a view attends to itself alone."""

    spec: RotaryEncoder

    def encode(self, patches: Tensor, views: tuple[View, ...]) -> Tensor:
        return super().encode(patches, frames_of(views))

    def rotation(self, tokens: Tensor, segments: Segments, views: tuple[View, ...]) -> tuple[Tensor, Tensor]:
        """Cosines and sines for tokens (V, n, D) or (1, N, D), see `rotation_of`."""
        return rotation_of(views, segments, self.spec.width // self.spec.heads, self.spec.theta, tokens.device)


class RotaryAttention(nn.Module):
    """A subclass has the linear layers, under their published names."""

    def __init__(self, spec: RotaryEncoder) -> None:
        super().__init__()
        self.heads = spec.heads
        self.one_size: Attend = eager if spec.attention == "eager" else functional.scaled_dot_product_attention

    def split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(V, n, D) -> queries, keys and values, (V, heads, n, channels) each."""
        raise NotImplementedError

    def join(self, seen: Tensor) -> Tensor:
        """(V, n, D), the heads side by side, -> (V, n, D)."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, rotation: tuple[Tensor, Tensor], segments: Segments) -> Tensor:
        """(V, n, D), or (1, N, D) with different segments -> the same shape; rotation: cosines and sines (n or N, channels of a head)."""
        queries, keys, values = self.split(tokens)
        seen = attend(rotated(queries, rotation), rotated(keys, rotation), values, segments, self.one_size)
        return self.join(seen.transpose(1, 2).flatten(2))


def frames_of(views: tuple[View, ...]) -> tuple[View, ...]:
    """Each frame of each view as a view: where frames attend to themselves alone."""
    return tuple(view._replace(grid=replace(view.grid, frames=1)) for view in views for _ in range(view.grid.frames))


def rotation_of(views: tuple[View, ...], segments: Segments, dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines for the tokens of views: (n, dim) where they are rows of a batch, (N, dim) where they stand in one row."""
    found = {grid: turns(grid, dim, theta, device) for grid in dict.fromkeys(view.grid for view in views)}
    if segments.equal:
        return found[views[0].grid]
    cosines, sines = zip(*(found[view.grid] for view in views), strict=True)
    return torch.cat(cosines), torch.cat(sines)


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
