"""Splice: visual tokens take their places in the embedding sequence, nothing else changes.

LLaVA (Liu et al. 2023, arXiv:2304.08485) and most systems since. One gather, whatever the number of images. Visual tokens
stand beside the embeddings as the connector gives them, also where the language model scales its own (Gemma, by
sqrt(D_lm)): as in transformers' PaliGemma.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmkit.fusion import fusions
from vlmkit.fusion.base import Fusion

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlmkit.fusion.module import FusionModule
    from vlmkit.layout.base import TokenLayout


@fusions.register("splice")
@dataclass(frozen=True, kw_only=True)
class Splice(Fusion):
    def build(self, language_model: PreTrainedModel, layout: TokenLayout) -> FusionModule:
        from vlmkit.fusion.splice_module import SpliceModule

        return SpliceModule(language_model, layout)
