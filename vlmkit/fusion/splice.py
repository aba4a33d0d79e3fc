"""Splice: visual tokens take their places in the embedding sequence, nothing else changes.

LLaVA (Liu et al. 2023, arXiv:2304.08485) and most systems since. One gather, whatever the number of images. Visual tokens
stand beside the embeddings as the connector gives them, also where the language model scales its own (Gemma, by
sqrt(D_lm)): as in transformers' PaliGemma.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmkit.fusion import fusions
from vlmkit.fusion.base import Fusion
from vlmkit.fusion.incoming import Incoming
from vlmkit.fusion.masks import causal_masks
from vlmkit.fusion.module import FusionModule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlmkit.layout.base import TokenLayout


@fusions.register("splice")
@dataclass(frozen=True, kw_only=True)
class Splice(Fusion):
    def build(self, language_model: PreTrainedModel, layout: TokenLayout) -> FusionModule:
        return SpliceModule(language_model, layout)


class SpliceModule(FusionModule):
    def __init__(self, language_model: PreTrainedModel, layout: TokenLayout) -> None:
        super().__init__(language_model, layout)
        self.config = language_model.config

    def forward(self, incoming: Incoming) -> dict[str, Any]:
        embeddings = self.embeddings(incoming)
        return {"inputs_embeds": embeddings, "attention_mask": causal_masks(self.config, embeddings, incoming)}
