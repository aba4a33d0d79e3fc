"""The contract of a fusion: visual tokens and text embeddings become what the language model is called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from vlmkit.fusion import fusions
from vlmkit.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from vlmkit.features import Features
    from vlmkit.layout.base import TokenLayout


class FusionError(ValueError):
    """Visual tokens and their places do not fit together."""


@dataclass(frozen=True)
class Incoming:
    """What meets in a fusion."""

    embeddings: Tensor
    """Text embeddings (B, S, D_lm), with a placeholder's wherever a visual token will stand."""
    visual: Features | None
    """Visual tokens (T, D_lm); None where the batch has no images, or they are in the cache already."""
    visual_index: Tensor | None
    """(B, S): the row of the visual token that stands there, -1 for text."""
    attention_mask: Tensor | None
    """(B, S), or None for no padding."""
    position_ids: Tensor | None
    """(B, S), or None."""
    past_key_values: Any
    """The language model's cache, or None."""
    token_type_ids: Tensor | None
    """(B, S): 0 in the prefix, 1 from the assistant's first word on; None unless the fusion asks for it."""


@dataclass(frozen=True, kw_only=True)
class Fusion(Spec):
    """Base of fusions."""

    registry = fusions

    needs_prefix: ClassVar[bool] = False
    """Whether a batch has to say which tokens are the prefix (token_type_ids)."""

    def build(self, language_model: PreTrainedModel, layout: TokenLayout) -> nn.Module:
        """A module, Incoming -> the arguments to call the language model with: `inputs_embeds` (B, S, D_lm),
        `attention_mask` and whatever else it changes. It may put layers into the language model."""
        raise NotImplementedError
