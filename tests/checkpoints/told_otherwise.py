"""Published models whose config says something else in some of its fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from families import qwen2_vl
from families.registered import SYSTEMS
from families.system import Reference, user
from families.tiny import draw, picture
from torch import Tensor
from transformers import PretrainedConfig

from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor

Path = tuple[str, ...]
"""The way to a field: ("vision_config", "hidden_act")."""

BOOKKEEPING = frozenset(PretrainedConfig().to_dict()) | {"model_type"}
"""Fields that every config has; none of them is a model's own."""
ELSEWHERE = frozenset({"text_config", "tie_word_embeddings", "vlmkit_own_head"})
"""Fields of the language model, which has laws of its own."""
ROW = [user("What is this?", picture(40, 52))]


def reference_of(title: str) -> Reference:
    (system,) = (system for system in SYSTEMS if system.title == title)
    return system.reference()


@cache
def base_of(title: str) -> Reference:
    return reference_of(title)


def fields_of(title: str) -> dict[Path, Any]:
    """Every field of a system's config, of its vision tower and of what else it holds but the language model, with its value."""

    def walk(told: dict[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
        for name, value in told.items():
            if name in BOOKKEEPING or name in ELSEWHERE:
                continue
            if isinstance(value, dict) and "model_type" in value:
                yield from walk(value, (*path, name))
            else:
                yield (*path, name), value

    return dict(walk(base_of(title).model.config.to_dict(), ()))


def changed(title: str, changes: dict[Path, Any], adapt: Callable[[Any], None] = lambda processor: None) -> Reference:
    """The system's reference whose config says something else, with the same weights as ever where their shapes are; `adapt` fits its
    processor to it."""
    base, reference = base_of(title), reference_of(title)
    told = reference.model.config.to_dict()
    for path, value in changes.items():
        at = told
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = value
    model = draw(type(reference.model)(type(reference.model.config).from_dict(told)))
    own, same = model.state_dict(), base.model.state_dict()
    model.load_state_dict({name: same[name] for name in own if name in same and own[name].shape == same[name].shape}, strict=False)
    adapt(reference.processor)
    patches = reference.patches if ("vision_config", "spatial_merge_size") not in changes else partial(qwen2_vl.patches, merge=4)
    return Reference(model, reference.processor, reference.inputs, patches, reference.generate, reference.read_processor)


def logits_of_reference(reference: Reference, model: Any = None, **told: Any) -> Tensor:
    """Those of its model, or of another one with its inputs."""
    with torch.no_grad():
        found: Tensor = (model or reference.model)(**reference.inputs(reference.processor, ROW), **told).logits[0]
    return found


def logits_of(loaded: tuple[VLM, VLMProcessor], reference: Reference) -> Tensor:
    """vlmkit's, over the reference's own pixels."""
    model, processor = loaded
    batch: Any = processor([ROW], add_generation_prompt=True)
    theirs = reference.inputs(reference.processor, ROW)
    assert batch["input_ids"].tolist() == theirs["input_ids"].tolist()
    batch["pixel_values"] = reference.patches(theirs, model.config.spec.encoder)
    with torch.no_grad():
        found: Tensor = model(**batch).logits[0]
    return found
