"""What built fusions share: learned embeddings, and tokens that are put at their places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlmkit.fusion.incoming import Incoming
from vlmkit.fusion.learned import LearnedEmbeddings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlmkit.layout.base import TokenLayout


class FusionModule(nn.Module):
    """Base of built fusions. It owns the layout's learned embeddings, and whatever layers it puts into the language model.

    keeps_visual: whether generation has to hand it the visual tokens again at every step, and not with the prompt alone.
    """

    keeps_visual: bool = False

    def __init__(self, language_model: PreTrainedModel, layout: TokenLayout) -> None:
        super().__init__()
        dim = language_model.get_input_embeddings().embedding_dim
        self.learned = LearnedEmbeddings(layout.learned, dim) if layout.learned else None

    def remembers(self, cache: Any) -> bool:
        """Whether a cache keeps what its tokens looked at, so that what follows can look at it without the images."""
        return False

    def forward(self, incoming: Incoming) -> dict[str, Any]:
        """The arguments to call the language model with: `inputs_embeds` (B, S, D_lm), `attention_mask` and whatever else it changes."""
        raise NotImplementedError

    def embeddings(self, incoming: Incoming) -> Tensor:
        """(B, S, D_lm) with visual tokens and learned embeddings at their places.

        Both are called for and looked up whatever the batch holds, so that each rank of a sharded model calls the same modules; where
        none has a place, nothing of them arrives and their gradient is zero.
        """
        out = incoming.embeddings
        if incoming.visual is not None and len(incoming.visual.tokens):
            out = self.seen(incoming, incoming.visual.tokens)
        if self.learned is not None:
            out = put(out, self.learned(), incoming.learned_index)
        return out

    def seen(self, incoming: Incoming, tokens: Tensor) -> Tensor:
        """Embeddings (B, S, D_lm) with visual tokens (T, D_lm) at their places."""
        return put(incoming.embeddings, tokens, incoming.visual_index)


def put(embeddings: Tensor, tokens: Tensor, index: Tensor | None) -> Tensor:
    """Embeddings (B, S, D) with row index[b, s] of tokens (T, D) at every place whose index (B, S) is 0 or more. One gather."""
    if index is None:
        index = embeddings.new_full(embeddings.shape[:2], -1, dtype=torch.long)
    found = tokens.to(embeddings.dtype)[index.clamp(min=0)]
    return torch.where((index >= 0)[..., None], found, embeddings)
