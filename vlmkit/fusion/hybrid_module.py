"""The module of `hybrid`: visual tokens at their places, and layers that look at others and at the tags of their views."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vlmkit.features import Features
from vlmkit.fusion.cross_attention_module import CrossAttentionModule
from vlmkit.fusion.hybrid import Hybrid
from vlmkit.fusion.incoming import FusionError, Incoming
from vlmkit.fusion.module import FusionModule
from vlmkit.fusion.sight import Owners

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlmkit.layout.base import TokenLayout


def build(spec: Hybrid, language_model: PreTrainedModel, layout: TokenLayout) -> FusionModule:
    return HybridModule(spec, language_model, layout)


class HybridModule(CrossAttentionModule):
    def seen_by_words(self, incoming: Incoming, visual: Features) -> tuple[Tensor, Owners]:
        """Raises FusionError for visual tokens without the tags of their views."""
        tokens, owners = super().seen_by_words(incoming, visual)
        if incoming.tags is None:
            raise FusionError("fusion 'hybrid' needs tags, the text of views that are looked at: pass the processor's whole batch")
        embeddings, held = incoming.tags
        begins = torch.tensor(list(accumulate((grid.tokens for grid in visual.grids), initial=0))[: len(held)])
        # A tag is of the picture whose first visual token its view begins with; where a view has none, of no picture.
        of = torch.where(held, begins.to(held.device, non_blocking=True)[:, None], -1).flatten()
        together = torch.cat([tokens, embeddings.flatten(0, 1).to(tokens.dtype)])
        return together, Owners(torch.cat([owners.tokens, of]), len(together))
