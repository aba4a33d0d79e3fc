"""The module of `splice`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.fusion.incoming import Incoming
from vlmkit.fusion.masks import causal_masks
from vlmkit.fusion.module import FusionModule
from vlmkit.fusion.splice import Splice

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlmkit.layout.base import TokenLayout


def build(spec: Splice, language_model: PreTrainedModel, layout: TokenLayout) -> FusionModule:
    return SpliceModule(language_model, layout)


class SpliceModule(FusionModule):
    def __init__(self, language_model: PreTrainedModel, layout: TokenLayout) -> None:
        super().__init__(language_model, layout)
        self.config = language_model.config

    def forward(self, incoming: Incoming) -> dict[str, Any]:
        embeddings = self.embeddings(incoming)
        return {"inputs_embeds": embeddings, "attention_mask": causal_masks(self.config, embeddings, incoming)}
