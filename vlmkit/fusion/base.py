"""The contract of a fusion: visual tokens and text embeddings become what the language model is called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmkit.fusion import fusions
from vlmkit.spec import Spec

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class FusionError(ValueError):
    """Visual tokens and their places do not fit together."""


@dataclass(frozen=True, kw_only=True)
class Fusion(Spec):
    """Base of fusions."""

    registry = fusions

    def build(self, language_model: PreTrainedModel) -> nn.Module:
        """A module called as `fusion(embeddings (B, S, D_lm), visual: Features (T, D_lm), visual_index (B, S),
        attention_mask)` that returns the arguments to call the language model with. It may put layers into the model."""
        raise NotImplementedError
