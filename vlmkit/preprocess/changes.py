"""Which of a film's tokens show something new: the differential frame pruner of VideoLLaMA 3 (arXiv:2501.13106)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vlmkit.features import Grid, GridError


def changed_tokens(
    patches: Tensor, grids: Sequence[Grid], merged: Sequence[Grid], views: int, std: Sequence[float], threshold: float
) -> bytes:
    """One byte a visual token of a film whose frames are cut into `views` views, 0 where its pixels are nearly those of the frame before.

    Either every grid is a film by itself, or each frame has grids of its own, in the order of `ImagePlan.grids`. See `changed`.
    """
    pieces = torch.split(patches, [grid.tokens for grid in grids])
    found = [b""] * len(grids)
    for view in range(views):
        of = range(view, len(grids), views)
        frames = sum(grids[number].frames for number in of)
        film, tokens = (replace(every[view], frames=frames) for every in (grids, merged))
        kept = changed(torch.cat([pieces[number] for number in of]), film, tokens, std, threshold)
        each = len(kept) // len(of)
        for place, number in enumerate(of):
            found[number] = kept[place * each : (place + 1) * each]
    return b"".join(found)


def changed(patches: Tensor, grid: Grid, merged: Grid, std: Sequence[float], threshold: float) -> bytes:
    """One byte a visual token of a film, 0 where its pixels are nearly those of the frame before.

    patches: (N, 3*t*p*p) uint8 of F frames in the raster order of `grid`; merged: the grid after the connector, whose tokens cover
    whole blocks of patches. What is compared with the threshold is the mean absolute difference of the token's pixels as the encoder
    normalises them (divided by 255 and by `std`), times 255. The first frame is new, and of a frame in which nothing is its first
    token counts as new. Raises GridError where tokens are no blocks of patches.
    """
    rows, columns = grid.rows // merged.rows, grid.columns // merged.columns
    if (merged.frames, merged.rows * rows, merged.columns * columns, merged.prefix) != (grid.frames, grid.rows, grid.columns, 0):
        raise GridError(f"tokens of a {merged} grid do not cover blocks of the {grid} patches of a film: none says which changed")
    frames = patches.view(grid.frames, merged.rows, rows, merged.columns, columns, 3, -1)
    weights = 1 / torch.tensor(std, dtype=torch.float64).abs()
    values = frames[0].numel() // (merged.rows * merged.columns)
    kept = torch.ones(grid.frames, merged.rows * merged.columns, dtype=torch.bool)
    for number in range(1, grid.frames):
        difference = (frames[number].to(torch.int16) - frames[number - 1].to(torch.int16)).abs_()
        by_channel = difference.sum(dim=(1, 3, 5), dtype=torch.int64)
        kept[number] = (by_channel.double() @ weights / values > threshold).flatten()
        if not kept[number].any():
            kept[number, 0] = True
    return kept.flatten().numpy().tobytes()
