"""A learned table of positions, resampled to another grid.

Every library does this to the same table with another filter, and the filter shows: at 14x42 from 27x27 the two bicubic
ones differ by up to 0.13 in features of size 0.8.

| mode                 | who does so                                                                               |
|----------------------|-------------------------------------------------------------------------------------------|
| `bicubic_antialias`  | timm's dynamic_img_size, open_clip when it loads a checkpoint of another size, vlmkit      |
| `bicubic`            | transformers' interpolate_pos_encoding, Qwen-VL (arXiv:2308.12966)                        |
| `bilinear[_antialias]` | SigLIP 2 NaFlex (arXiv:2502.14786, with antialias)                                      |
| `bucket`             | no arithmetic on the table: each patch takes the entry at its fraction of the side, as    |
|                      | Idefics2 (arXiv:2405.02246) and its descendants do, after NaViT (arXiv:2307.06304)        |
| `fixed`              | none: only the table's own grid                                                           |

Pixel centres are aligned (align_corners=False). At its own grid a filter returns the table as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from vlmkit.encoders.base import Positions
from vlmkit.features import Grid, GridError


def resample(table: Tensor, native: Grid, grid: Grid, mode: Positions) -> Tensor:
    """Positions for a grid: (prefix + native rows * columns, D) -> (prefix + rows * columns, D), in the table's dtype.

    The first `native.prefix` rows (the class token's) are kept. Filters run in float32. Raises GridError where `fixed`
    meets another grid.
    """
    prefix, patches = table[: native.prefix], table[native.prefix :]
    if mode == "bucket":
        rows = bucket(grid.rows, native.rows, table.device)
        columns = bucket(grid.columns, native.columns, table.device)
        return torch.cat([prefix, patches[(rows[:, None] * native.columns + columns).flatten()]])
    if (grid.rows, grid.columns) == (native.rows, native.columns):
        return table
    if mode == "fixed":
        raise GridError(f"positions='fixed' knows a {native.rows}x{native.columns} grid, but the view is {grid.rows}x{grid.columns}")
    image = patches.float().view(native.rows, native.columns, -1).permute(2, 0, 1)[None]
    filtered = F.interpolate(
        image,
        size=(grid.rows, grid.columns),
        mode=mode.removesuffix("_antialias"),
        align_corners=False,
        antialias=mode.endswith("_antialias"),
    )
    return torch.cat([prefix, filtered[0].flatten(1).T.to(table.dtype)])


def bucket(count: int, entries: int, device: torch.device) -> Tensor:
    """(count,) index of the table's entry for each of `count` patches along a side: floor(i * entries / count).

    The comparison is made in float32, as the models that use it were trained: bucket(35, 70) is 0, 2, 4, ... but where
    i / 35 falls a rounding error below an entry's edge it is the entry before.
    """
    fractions = torch.arange(count, dtype=torch.float32, device=device) * (1.0 / torch.full((), count, device=device))
    edges = torch.arange(1 / entries, 1.0, 1 / entries, device=device)
    return torch.bucketize(fractions.clamp(max=1.0 - 1e-6), edges, right=True)
