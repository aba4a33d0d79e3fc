"""Splice: visual tokens take their places in the embedding sequence, nothing else changes.

LLaVA (Liu et al. 2023, arXiv:2304.08485) and most systems since. One gather, whatever the number of images. Visual tokens
stand beside the embeddings as the connector gives them, also where the language model scales its own (Gemma, by
sqrt(D_lm)): as in transformers' PaliGemma.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlmkit.features import Features
from vlmkit.fusion import fusions
from vlmkit.fusion.base import Fusion, FusionError, Incoming

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlmkit.layout.base import TokenLayout


@fusions.register("splice")
@dataclass(frozen=True, kw_only=True)
class Splice(Fusion):
    def build(self, language_model: PreTrainedModel, layout: TokenLayout) -> nn.Module:
        return SpliceModule(whole=not layout.partial)


class SpliceModule(nn.Module):
    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, incoming: Incoming) -> dict[str, Any]:
        """Raises FusionError where a sample has only part of a view, or refers to a visual token that does not exist."""
        return {"inputs_embeds": splice(incoming, whole=self.whole), "attention_mask": incoming.attention_mask}


def splice(incoming: Incoming, *, whole: bool) -> Tensor:
    """Embeddings (B, S, D_lm) with visual tokens (T, D_lm) at the places that `visual_index` (B, S) gives them.

    `whole`: a view that a sample shows has all its tokens there.
    """
    embeddings, visual, visual_index = incoming.embeddings, incoming.visual, incoming.visual_index
    if visual is None or visual_index is None:
        return embeddings
    check_places(visual, visual_index, whole=whole)
    if not visual.grids:
        return embeddings
    tokens = visual.tokens.to(embeddings.dtype)[visual_index.clamp(min=0)]
    return torch.where((visual_index >= 0)[..., None], tokens, embeddings)


def check_places(visual: Features, visual_index: Tensor, *, whole: bool) -> None:
    """Every place has its visual token; with `whole`, every view is in a sample whole, once or several times, or not at all.

    Raises FusionError naming sample, view and both numbers.
    """
    index = visual_index.detach().cpu()
    total = visual.tokens.shape[0]
    sizes = torch.tensor([grid.tokens for grid in visual.grids], dtype=torch.long)
    highest = int(index.max()) if index.numel() else -1
    if highest >= total:
        sample = int((index == highest).any(dim=1).nonzero()[0])
        raise FusionError(
            f"sample {sample} refers to visual token {highest}, but the images of the batch gave {total} "
            f"({len(visual.grids)} views); pass pixel_values, grids and visual_index of the same batch"
        )
    if not total or not whole:
        return
    view_of = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    for sample, row in enumerate(index):
        found = torch.bincount(view_of[row[row >= 0]], minlength=len(sizes))
        wrong = (found % sizes != 0).nonzero()
        if len(wrong):
            view = int(wrong[0])
            raise FusionError(
                f"sample {sample}: view {view} (grid {visual.grids[view]}) has {int(sizes[view])} visual tokens, "
                f"but {int(found[view])} places in the text"
            )
