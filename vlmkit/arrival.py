"""What is checked, once and before anything is launched, of a batch that does not come from the processor.

A batch of the processor states its `segments`, and its places were right when they were written.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlmkit.features import Grid
from vlmkit.fusion.incoming import FusionError


def check_places(grids: Sequence[Grid], visual_index: Tensor, *, whole: bool) -> None:
    """Every place has its visual token; with `whole`, every view is in a sample whole, once or several times, or not at all.

    grids: what the connector gives for each view. visual_index: (B, S). Raises FusionError naming sample, view and both numbers.
    """
    index = visual_index.detach().cpu()
    sizes = torch.tensor([grid.tokens for grid in grids], dtype=torch.long)
    total = int(sizes.sum())
    highest = int(index.max()) if index.numel() else -1
    if highest >= total:
        sample = int((index == highest).any(dim=1).nonzero()[0])
        raise FusionError(
            f"sample {sample} refers to visual token {highest}, but the images of the batch gave {total} "
            f"({len(grids)} views); pass pixel_values, grids and visual_index of the same batch"
        )
    lowest = int(index.min()) if index.numel() else -1
    if lowest < -1:
        sample = int((index == lowest).any(dim=1).nonzero()[0])
        raise FusionError(f"sample {sample}: visual_index {lowest}, expected the number of a visual token from 0 up, or -1 for none")
    if not total or not whole:
        return
    view_of = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    for sample, row in enumerate(index):
        found = torch.bincount(view_of[row[row >= 0]], minlength=len(sizes))
        wrong = (found % sizes != 0).nonzero()
        if len(wrong):
            view = int(wrong[0])
            raise FusionError(
                f"sample {sample}: view {view} (grid {grids[view]}) has {int(sizes[view])} visual tokens, "
                f"but {int(found[view])} places in the text"
            )
