"""The module of `prefix`: embeddings as with `splice`, and the mask in which a prefix sees itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vlmkit.fusion.incoming import FusionError, Incoming
from vlmkit.fusion.masks import as_given, causal_masks, is_whole
from vlmkit.fusion.module import FusionModule
from vlmkit.fusion.prefix import Prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlmkit.layout.base import TokenLayout


def build(spec: Prefix, language_model: PreTrainedModel, layout: TokenLayout) -> FusionModule:
    return PrefixModule(language_model, layout)


class PrefixModule(FusionModule):
    def __init__(self, language_model: PreTrainedModel, layout: TokenLayout) -> None:
        super().__init__(language_model, layout)
        self.config = language_model.config

    def forward(self, incoming: Incoming) -> dict[str, Any]:
        """Raises FusionError where a batch does not say what its prefix is, where part of the prefix is in the cache and the rest is not,
        and for attention kernels that are causal or not and nothing in between."""
        embeddings = self.embeddings(incoming)
        return {"inputs_embeds": embeddings, "attention_mask": self.mask(incoming, embeddings)}

    def mask(self, incoming: Incoming, embeddings: Tensor) -> Any:
        """The mask of a prompt or of whole samples; behind a cached prefix everything is causal and padding says it all."""
        if is_whole(incoming.attention_mask):
            return as_given(self.config, embeddings, incoming)
        types, cache = incoming.token_type_ids, incoming.cache
        cached = 0 if cache is None else int(cache.get_seq_length())
        if cached:
            if types is not None and bool((types == 0).any()):
                raise FusionError(
                    f"{int((types == 0).sum(dim=1).max())} tokens of the prefix come behind {cached} cached ones, but a prefix sees "
                    "itself in both directions: give it in one call, with an empty cache and without prefill_chunk_size"
                )
            return incoming.attention_mask
        if types is None:
            raise FusionError("fusion 'prefix' needs token_type_ids, 0 in the prefix and 1 behind it: pass the processor's whole batch")
        attention = self.config._attn_implementation
        if "flash" in attention:
            raise FusionError(f"{attention} has no mask for a prefix; load or set the language model with attention 'sdpa' or 'eager'")
        return causal_masks(self.config, embeddings, incoming, blocks(types, incoming.segments))


def blocks(types: Tensor, segments: Tensor | None) -> Tensor:
    """(B, S): the number of the sample within its row where a token is in a prefix, -1 where it is not."""
    samples = torch.zeros_like(types) if segments is None else segments
    return torch.where(types == 0, samples, -1)
