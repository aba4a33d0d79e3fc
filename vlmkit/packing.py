"""Rows that hold several samples: how they are told apart, and which language models can."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from vlmkit.fusion.incoming import FusionError, Incoming
from vlmkit.layout.laid_out import IGNORE

Boundaries = Tensor | tuple[int, ...]
"""(P + 1,): where the samples of packed rows that stand one behind the other begin, and where the last one ends."""

STATES = {"conv", "hybrid", "hybrid_sliding", "linear_attention"}
"""transformers' types of layers that see what was before by a state, whatever the positions."""


def carries_state(language_model: PreTrainedModel) -> bool:
    return language_model._is_stateful or not STATES.isdisjoint(getattr(language_model.config, "layer_types", None) or ())


def takes_masks(language_model: PreTrainedModel) -> bool:
    """Whether it can be given masks that are made already. One with a state makes its own; one that reports its router's loss counts
    padding from the batch's own mask."""
    return not carries_state(language_model) and not getattr(language_model.config, "output_router_logits", False)


def varies(language_model: PreTrainedModel) -> bool:
    """Whether its attention takes sequences of variable length by their boundaries, and no mask."""
    return "flash" in str(language_model.config._attn_implementation)


def refuse_states(language_model: PreTrainedModel) -> None:
    """Raise FusionError for packed rows of a language model in which each sample would see the state that the one before left."""
    if carries_state(language_model):
        raise FusionError(
            f"language model {language_model.config.model_type!r} carries a state through a row, also from one packed sample "
            "to the next; leave packing out: pad each sample to the longest"
        )


def segments_of(positions: Tensor | None, attention_mask: Tensor | None, cached: bool) -> Tensor | None:
    """(B, S): the number of the sample within its row, where positions (B, S) or (3, B, S) start again within one; None where none do.

    For batches that do not state it. Reads values back from the device. Raises FusionError where such rows come with an attention mask
    or for generation: then language models do not look at positions, and samples would see each other.
    """
    if positions is None or positions.shape[-1] < 2:
        return None
    if positions.dim() == 3:
        # Rows and columns of a view count from where it begins; only where a sample begins do all three say so.
        restarts = (positions[:, :, 1:] == 0).all(dim=0)
        positions = positions[0]
    else:
        restarts = positions[:, 1:] <= positions[:, :-1]
    if attention_mask is not None and attention_mask.dim() == 2:
        seen = attention_mask[:, -positions.shape[1] :].bool()
        restarts = restarts & seen[:, 1:] & seen[:, :-1]
    if not bool(restarts.any()):
        return None
    refuse_mask(attention_mask, cached or None)
    segments = torch.zeros_like(positions)
    segments[:, 1:] = restarts.cumsum(dim=1)
    return segments


def refuse_mask(attention_mask: Any, cache: Any) -> None:
    """Raise FusionError for packed rows with either."""
    if attention_mask is not None or cache is not None:
        raise FusionError("packed samples (positions start again within a row) take neither attention_mask nor a cache; leave both out")


def boundaries_of(segments: Tensor) -> Tensor:
    """(P + 1,) int32: where the samples of rows (B, S) that stand one behind the other begin, and where the last one ends. For batches
    that do not state it. Reads values back from the device."""
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return functional.pad(begins.flatten().nonzero().squeeze(1), (0, 1), value=segments.numel()).to(torch.int32)


def variable_length(segments: Tensor, boundaries: Boundaries | None) -> dict[str, Any]:
    """What transformers hands to an attention of variable length for rows (B, S) that stand one behind the other."""
    if boundaries is None:
        boundaries = boundaries_of(segments)
    elif not isinstance(boundaries, Tensor):
        boundaries = torch.tensor(boundaries, dtype=torch.int32)
    begins, longest = boundaries.to(segments.device, non_blocking=True), segments.shape[1]
    return {"cu_seq_lens_q": begins, "cu_seq_lens_k": begins, "max_length_q": longest, "max_length_k": longest}


def by_boundaries(segments: Tensor, boundaries: Boundaries) -> dict[str, Any]:
    """What attention by sample is handed: boundaries where the batch states them, so that nothing is read back, and beside them, on a
    device, what its kernels take."""
    device = segments.device.type != "cpu"
    stated = {} if isinstance(boundaries, Tensor) and boundaries.device.type != "cpu" else {"boundaries": boundaries}
    return stated | (variable_length(segments, boundaries) if device else {})


def in_one_row(incoming: Incoming, maskless: bool = False) -> Incoming:
    """Rows one after the other as one row: attention of variable length takes them so, by their boundaries."""

    def joined(value: Tensor | None, rows: int = 0) -> Tensor | None:
        return None if value is None else value.flatten(rows, rows + 1).unsqueeze(rows)

    positions = incoming.position_ids
    return incoming._replace(
        embeddings=incoming.embeddings.flatten(0, 1)[None],
        visual_index=joined(incoming.visual_index),
        learned_index=joined(incoming.learned_index),
        visible=joined(incoming.visible),
        segments=None,
        attention_mask=None,
        position_ids=joined(positions, positions.dim() - 2) if positions is not None else None,
        token_type_ids=joined(incoming.token_type_ids),
        maskless=maskless,
    )


def weights_in_one_row(weights: Tensor | None) -> Tensor | None:
    """Weights (B, S) -> (1, B * S), beside `labels_in_one_row`."""
    return None if weights is None else weights.flatten()[None]


def labels_in_one_row(labels: Tensor, supervised: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (B, S) -> (1, B * S), and the columns (K,) of each row among them. The first token of a row is nobody's target."""
    rows, length = labels.shape
    labels = labels.index_fill(1, torch.zeros(1, dtype=torch.long, device=labels.device), IGNORE)
    first = torch.arange(rows, device=labels.device)[:, None] * length
    return labels.flatten()[None], (first + supervised).flatten()
