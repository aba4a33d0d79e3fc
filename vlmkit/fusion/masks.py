"""Masks of attention over rows that say themselves which sample each token belongs to.

transformers would find out from positions that start again, and whether a row is padded at all, by reading values back from the device
at every step. A batch that states its segments needs neither. Attention that is told where samples begin needs no mask either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers.masking_utils import create_masks_for_generate, packed_sequence_mask_function

from vlmkit.attention import no_mask
from vlmkit.cache_name import CACHE

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from vlmkit.fusion.incoming import Incoming


def causal_masks(config: PreTrainedConfig, embeddings: Tensor, incoming: Incoming, prefixes: Tensor | None = None) -> Any:
    """What a language model takes as `attention_mask`: a token sees its own sample up to itself. One mask, or one a layer type.

    prefixes (B, S): tokens of one number of 0 and more see each other in both directions. Without segments and prefixes the batch's own
    mask (B, S) is handed on, from which the language model makes causal ones; where none is wanted, what stands for it.
    """
    segments = incoming.segments
    if incoming.maskless:
        return no_mask(prefixes, embeddings.device)
    if segments is None and prefixes is None:
        return incoming.attention_mask
    return create_masks_for_generate(
        config=config,
        inputs_embeds=embeddings,
        attention_mask=incoming.attention_mask if segments is None else None,
        **{CACHE: incoming.cache},
        position_ids=None,
        block_sequence_ids=prefixes,
        and_mask_function=None if segments is None else packed_sequence_mask_function(segments),
    )
