"""Splice: visual tokens take their places in the embedding sequence, nothing else changes.

LLaVA (Liu et al. 2023, arXiv:2304.08485) and most systems since. One gather, whatever the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlmkit.features import Features
from vlmkit.fusion import fusions
from vlmkit.fusion.base import Fusion, FusionError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@fusions.register("splice")
@dataclass(frozen=True, kw_only=True)
class Splice(Fusion):
    def build(self, language_model: PreTrainedModel) -> nn.Module:
        return SpliceModule()


class SpliceModule(nn.Module):
    def forward(self, embeddings: Tensor, visual: Features, visual_index: Tensor, attention_mask: Tensor | None) -> dict[str, Any]:
        """Embeddings (B, S, D_lm) with visual tokens (T, D_lm) at the places that `visual_index` (B, S) gives them.

        Raises FusionError where a sample has only part of a view, or refers to a visual token that does not exist.
        """
        check_places(visual, visual_index)
        if not visual.grids:
            return {"inputs_embeds": embeddings, "attention_mask": attention_mask}
        places = visual_index >= 0
        tokens = visual.tokens.to(embeddings.dtype)[visual_index.clamp(min=0)]
        return {"inputs_embeds": torch.where(places[..., None], tokens, embeddings), "attention_mask": attention_mask}


def check_places(visual: Features, visual_index: Tensor) -> None:
    """Every view is in a sample whole, once or several times, or not at all. Raises FusionError naming sample, view and both numbers."""
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
    if not total:
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
