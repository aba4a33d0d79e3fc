"""Names of weights in the layout of github.com/haotian-liu/LLaVA, and under vlmkit's. All values are kept."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.family import Renames, translate

TOWER = "model.vision_tower.vision_tower.vision_model."
"""What the names of a tower's weights begin with in the language model's files."""
RENAMES: Renames = (
    ("encoder.", TOWER),
    ("connector.linear.", "model.mm_projector."),
    ("connector.layers.", "model.mm_projector."),
    ("fusion.learned.newline", "model.image_newline"),
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "model."),
)
COMPUTED = (".rotary_emb.inv_freq", ".embeddings.position_ids")
"""Ends of names of what older versions of transformers kept beside the weights."""


def to_ours(weights: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Published weights under vlmkit's names. What LLaVA-1.6's line break is where none is used, is left out."""
    kept = "connector.linear." if architecture.connector.kind == "linear" else "connector.layers."
    names = tuple(pair for pair in RENAMES if not pair[0].startswith("connector.") or pair[0] == kept)
    found = {translate(name, names, to_ours=True): value for name, value in weights.items() if not name.endswith(COMPUTED)}
    if architecture.language_model.config.get("tie_word_embeddings") and "language_model.lm_head.weight" not in found:
        found["language_model.lm_head.weight"] = found["language_model.model.embed_tokens.weight"]
    return found


def to_theirs(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse."""
    return {translate(name, RENAMES, to_ours=False): value for name, value in weights.items()}


def has_tower(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights under vlmkit's names have any of a tower."""
    return any(name.startswith("encoder.") for name in weights)
