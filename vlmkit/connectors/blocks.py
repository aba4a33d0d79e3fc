"""Space to depth: the r x r neighbouring patches of a view are laid side by side in the channels of one token.

    rows x columns patches of D channels        rows/r x columns/r tokens of r*r*D channels (r = 2)
        a b | c d
        e f | g h                               [a b e f] [c d g h]
        ----+----                               [i j m n] [k l o p]
        i j | k l
        m n | o p

In the order "dh dw c" the channels of a token are those of a, then b, e and f. In the order "c dh dw" they are channel 0
of a, b, e and f, then channel 1 of the four, and so on: the order of a convolution's weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import torch
from einops import rearrange
from torch import Tensor

from vlmkit.connectors.block_connector import BlockConnector as BlockConnector
from vlmkit.connectors.block_connector import BlockOrder as BlockOrder
from vlmkit.connectors.block_connector import merged_grid as merged_grid
from vlmkit.features import Features, Grid


def equal_grids(features: Features) -> Iterator[tuple[Grid, Tensor]]:
    """Runs of neighbouring views with one grid: the grid and the (views * grid.tokens, D) tokens of the run."""
    start = 0
    for grid, run in groupby(features.grids):
        length = grid.tokens * len(list(run))
        yield grid, features.tokens[start : start + length]
        start += length


def merge_blocks(features: Features, ratio: int, order: BlockOrder) -> Tensor:
    """(N, D) -> (N / ratio^2, ratio^2 * D). Every grid has to be divisible, see `merged_grid`."""
    pattern = f"(frame row dh column dw) c -> (frame row column) ({order})"
    merged = [
        rearrange(tokens, pattern, row=grid.rows // ratio, column=grid.columns // ratio, dh=ratio, dw=ratio)
        for grid, tokens in equal_grids(features)
    ]
    if not merged:
        return features.tokens.reshape(0, ratio * ratio * features.tokens.shape[-1])
    return merged[0] if len(merged) == 1 else torch.cat(merged)
