"""A mask of attention that the caller makes: over every small named model what it says counts, or it is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import vlmkit
from tests.counted import TINY_MODELS
from tests.tiny import LANGUAGE_MODELS, apart, architecture, draw, model, picture, user
from vlmkit.fusion.incoming import FusionError
from vlmkit.model import VLM
from vlmkit.packing import carries_state

MODELS = vlmkit.list_models("*-tiny")
ROWS = [[user(picture(90, 70, seed=3), "What is it?")], [user("Only words, and more of them")]]
CLOSE = 1e-4


def test_every_small_model_is_walked() -> None:
    assert len(MODELS) == TINY_MODELS


def logits(built: VLM, batch: dict[str, Any], **other: Any) -> Tensor:
    """(tokens that are there, vocabulary)."""
    with torch.no_grad():
        out: Tensor = built(**batch | other).logits
    return out[batch["attention_mask"].bool()]


def seen(built: VLM, batch: dict[str, Any], held: Tensor) -> Tensor:
    """(B, 1, S, S): what each token sees by a mask of which tokens are there."""
    length = held.shape[1]
    back = torch.arange(length)[:, None] - torch.arange(length)
    sees = (back >= 0)[None] & held.bool()[:, None]
    window = getattr(built.language_model.config, "sliding_window", None)
    kinds = set(getattr(built.language_model.config, "layer_types", None) or ())
    if window is not None and (not kinds or kinds == {"sliding_attention"}):
        sees = sees & (back < window)
    if built.spec.fusion.needs_prefix:
        prefix = (batch["token_type_ids"] == 0) & held.bool()
        sees = sees | (prefix[:, :, None] & prefix[:, None])
    sees = sees | torch.eye(length, dtype=torch.bool)  # padding sees itself, or nothing would be what it gives
    return sees[:, None]


@pytest.mark.parametrize("name", MODELS)
def test_a_mask_of_four_axes_counts_or_is_refused(name: str) -> None:
    built, processor = vlmkit.build(name, seed=0).eval(), vlmkit.build_processor(name)
    draw(built)
    batch = dict(processor(ROWS))
    held = batch["attention_mask"]
    hole = held.clone()
    hole[:, -4] = 0
    config = built.language_model.config
    one_kind = len(set(getattr(config, "layer_types", None) or ())) < 2 and not getattr(config, "output_router_logits", False)
    stated = {"segments": batch.pop("segments")}
    for told in ({}, stated):
        expected, without = logits(built, batch, **told), logits(built, batch, attention_mask=hole, **told)
        there = (hole[held.bool()] != 0)[:, None]
        if not carries_state(built.language_model):
            assert apart(expected * there, without * there) > 1e-3, "the mask (B, S) was ignored"
        for mask, found in ((held, expected), (hole, without)):
            sees = seen(built, batch, mask)
            added = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
            for given in (sees, sees.long(), added):
                if one_kind:
                    again = logits(built, batch, attention_mask=given, **told)
                    assert apart(again * there, found * there) < CLOSE
                else:
                    with pytest.raises(FusionError, match=r"attention_mask of four axes.*pass attention_mask \(2, "):
                        logits(built, batch, attention_mask=given, **told)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("language", [name for name in LANGUAGE_MODELS if name not in ("olmo3", "gemma2")])
def test_yes_and_no_are_the_same_as_numbers_for_every_attention(language: str, attention: str) -> None:
    arch = architecture(language=language)
    built = model(arch)
    built.language_model.set_attn_implementation(attention)
    batch = dict(vlmkit.build_processor(arch)(ROWS))
    sees = seen(built, batch, batch["attention_mask"])
    assert apart(logits(built, batch, attention_mask=sees), logits(built, batch)) < CLOSE


def test_masks_that_fit_nothing_are_refused() -> None:
    arch = architecture(language="llama")
    built = model(arch)
    batch = dict(vlmkit.build_processor(arch)(ROWS))
    sees = seen(built, batch, batch["attention_mask"])
    with pytest.raises(FusionError, match=r"attention_mask \(2, 1, \d+, \d+\): expected \(2, 1, \d+, \d+\), what each token sees"):
        logits(built, batch, attention_mask=sees[..., 1:])
    with pytest.raises(ValueError, match="`attention_mask` passed to `generate` must be 2D"):  # transformers says so itself
        built.generate(**batch | {"attention_mask": sees}, max_new_tokens=1)
    built.language_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(FusionError, match="attention 'flash_attention_2' takes no mask of four axes; set attention 'sdpa' or 'eager'"):
        logits(built, batch, attention_mask=sees)
