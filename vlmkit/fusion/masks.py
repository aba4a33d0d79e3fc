"""Masks of attention over rows that say themselves which sample each token belongs to.

transformers would find out from positions that start again, and whether a row is padded at all, by reading values back from the device
at every step. A batch that states its segments needs neither. Attention that is told where samples begin needs no mask either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers.masking_utils import create_masks_for_generate, packed_sequence_mask_function

from vlmkit.attention import BY_SAMPLE, as_mask, no_mask
from vlmkit.cache_name import CACHE
from vlmkit.fusion.incoming import FusionError, Incoming

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

WHOLE = 4
"""Axes of a mask that says of each token which others it sees: rows, heads, tokens, and the tokens that they may see."""


def causal_masks(config: PreTrainedConfig, embeddings: Tensor, incoming: Incoming, prefixes: Tensor | None = None) -> Any:
    """What a language model takes as `attention_mask`: a token sees its own sample up to itself. One mask, or one a layer type.

    prefixes (B, S): tokens of one number of 0 and more see each other in both directions. Without segments and prefixes the batch's own
    mask (B, S) is handed on, from which the language model makes causal ones; where none is wanted, what stands for it. A mask of four
    axes says all that there is to say. Raises FusionError as `as_given`.
    """
    segments = incoming.segments
    if is_whole(incoming.attention_mask):
        return as_given(config, embeddings, incoming)
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


def is_whole(mask: Any) -> bool:
    """Whether a mask of attention is one of four axes: of which other tokens each token sees, and not which tokens are there."""
    return mask is not None and mask.dim() == WHOLE


def as_given(config: PreTrainedConfig, embeddings: Tensor, incoming: Incoming) -> Tensor:
    """The caller's mask (B or 1, heads or 1, S, cached + S), as the language model's attention takes it: yes for what is seen, or numbers
    that are added to scores. Raises FusionError for one of another shape, for attention that takes no such masks, and for language models
    whose layers do not all see the same."""
    mask, cache = incoming.attention_mask, incoming.cache
    assert mask is not None
    rows, length = embeddings.shape[:2]
    width = length + (0 if cache is None else int(cache.get_seq_length()))
    plain = f"attention_mask ({rows}, {width}), which tokens are there"
    if mask.shape[0] not in (1, rows) or mask.shape[2:] != (length, width):
        raise FusionError(
            f"attention_mask {tuple(mask.shape)}: expected ({rows}, 1, {length}, {width}), what each token sees, or pass {plain}"
        )
    attention = str(config._attn_implementation)
    if attention not in ("sdpa", "eager", *BY_SAMPLE.values()):
        raise FusionError(f"attention {attention!r} takes no mask of four axes; set attention 'sdpa' or 'eager', or pass {plain}")
    kinds = set(getattr(config, "layer_types", None) or ())
    if len(kinds) > 1:
        raise FusionError(
            f"attention_mask of four axes: language model {config.model_type!r} has layers that see differently "
            f"({', '.join(sorted(kinds))}), and it would be one mask for all; pass {plain}"
        )
    if getattr(config, "output_router_logits", False):
        raise FusionError(f"attention_mask of four axes: {config.model_type!r} counts its experts' tokens by their mask; pass {plain}")
    if mask.is_floating_point():
        return mask.to(embeddings.dtype)
    return as_mask(mask.bool(), attention.endswith("eager"), embeddings.dtype)
