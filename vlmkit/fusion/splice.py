"""Splice: visual tokens take their places in the embedding sequence, nothing else changes.

LLaVA (Liu et al. 2023, arXiv:2304.08485) and most systems since. One gather, whatever the number of images. Visual tokens
stand beside the embeddings as the connector gives them, also where the language model scales its own (Gemma, by
sqrt(D_lm)): as in transformers' PaliGemma.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.fusion import fusions
from vlmkit.fusion.base import Fusion


@fusions.register("splice")
@dataclass(frozen=True, kw_only=True)
class Splice(Fusion):
    pass
