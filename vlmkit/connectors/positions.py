"""2D sine and cosine positions of a grid, computed and never stored."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_1d(length: int, dim: int, *, device: torch.device | str | None = None, temperature: float = 10000.0) -> Tensor:
    """(length, dim) float32: sin(p / t^(2k / dim)) for k in 0 .. dim/2 - 1, then the cosines. Vaswani et al. 2017 (arXiv:1706.03762)."""
    exponents = torch.arange(dim // 2, dtype=torch.float32, device=device) / (dim // 2)
    positions = torch.arange(length, dtype=torch.float32, device=device)
    angles = torch.outer(positions, temperature**-exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_2d(rows: int, columns: int, dim: int, *, device: torch.device | str | None = None) -> Tensor:
    """(rows * columns, dim) float32 in raster order; `dim` is a multiple of 4.

    The order of MAE's `get_2d_sincos_pos_embed` (He et al. 2021, arXiv:2111.06377): the first half of the channels tells
    the column, the second half the row, and each half is all sines, then all cosines.
    """
    across = sincos_1d(columns, dim // 2, device=device)
    down = sincos_1d(rows, dim // 2, device=device)
    table = torch.cat([across[None].expand(rows, -1, -1), down[:, None].expand(-1, columns, -1)], dim=-1)
    return table.reshape(rows * columns, dim)
