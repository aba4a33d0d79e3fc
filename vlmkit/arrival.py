"""What is checked, once and before anything is launched, of a batch that does not come from the processor.

A batch of the processor states its `segments`, and its places were right when they were written.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlmkit.features import Grid
from vlmkit.fusion.incoming import FusionError


def check_columns(embeddings: Tensor, **stated: Tensor | None) -> None:
    """What a batch states of each token has a column for each embedding (B, S, D_lm) that was given in place of ids. Raises FusionError."""
    columns = embeddings.shape[1]
    for name, entry in stated.items():
        if entry is not None and entry.shape[1] != columns:
            raise FusionError(
                f"inputs_embeds have {columns} columns and {name} {entry.shape[1]}: expected the embeddings of the batch's input_ids. "
                "Where PEFT puts learned ones before them (prompt tuning), nobody moves what stands for images; LoRA leaves all where it is"
            )


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
