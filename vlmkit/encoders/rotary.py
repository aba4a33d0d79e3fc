"""Rotary positions by row and column: each pair of a head's channels turns with one of the two (RoPE, Su et al. 2021,
arXiv:2104.09864, along two axes). What Qwen2-VL's tower and VideoLLaMA 3's share."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vlmkit.encoders.segments import Segments
from vlmkit.features import Grid, View


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
