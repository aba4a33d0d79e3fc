"""Weights and pixels that are no numbers, overflow, and numbers out of bounds end in a sentence, and not in an answer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import CONVERSATIONS, shared
from vlmkit.finite import refuse_numberless
from vlmkit.fusion.incoming import FusionError
from vlmkit.layout.laid_out import LayoutError

PHOTO = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def asked(model: Any) -> str:
    return str(model.chat(shared()[1], PHOTO, "What is this?", max_new_tokens=2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(value: float) -> None:
    model = copy.deepcopy(shared()[0])
    assert asked(model) is not None
    name, weight = next((name, weight) for name, weight in model.named_parameters() if "language_model" in name and "mlp" in name)
    with torch.no_grad():
        weight.fill_(value)
    with pytest.raises(FloatingPointError, match=f"the logits are not finite: weight {name} holds NaN or infinite values"):
        asked(model)


@pytest.mark.parametrize(
    "how",
    [
        {"do_sample": False},
        {"do_sample": True},
        {"num_beams": 2},
        {"use_cache": False},
        {"prompt_lookup_num_tokens": 2},
        {"cache_implementation": "static", "disable_compile": True},
    ],
    ids=str,
)
def test_no_way_of_generating_answers_with_logits_that_are_no_numbers(how: dict[str, Any]) -> None:
    model, processor = copy.deepcopy(shared()[0]), shared()[1]
    batch = processor([CONVERSATIONS[0][:1]], add_generation_prompt=True)
    assert len(model.generate(**batch, max_new_tokens=3, **how)[0]) > batch["input_ids"].shape[1]
    with torch.no_grad():
        model.language_model.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="the logits are not finite: weight language_model"):
        model.generate(**batch, max_new_tokens=3, **how)


def test_pixels_that_are_no_numbers_are_named() -> None:
    model, processor = shared()
    batch = dict(processor([CONVERSATIONS[0][:1]], add_generation_prompt=True))
    batch["pixel_values"] = torch.full(batch["pixel_values"].shape, float("nan"))
    with pytest.raises(FloatingPointError, match="pixel_values hold NaN or infinite values; look at the images"):
        model.generate(**batch, max_new_tokens=2, do_sample=False)


def test_what_overflows_in_half_precision_is_named() -> None:
    model = copy.deepcopy(shared()[0])
    layer = model.language_model.model.layers[1].mlp.up_proj
    with torch.no_grad():
        layer.weight.fill_(3e4)
    assert asked(model) is not None
    model = model.to(torch.float16)
    with pytest.raises(
        FloatingPointError, match=r"come out of language_model\.model\.layers\.1\..*float16; load the model with dtype='bfl"
    ):
        asked(model)


@pytest.mark.parametrize("length", [-5, 0])
def test_no_conversation_has_less_than_a_token(length: int) -> None:
    with pytest.raises(LayoutError, match=f"max_length={length}: expected a whole number of tokens from 1 up"):
        shared()[1]([CONVERSATIONS[0]], max_length=length, truncation=True)


def test_a_visual_token_has_no_number_below_zero() -> None:
    model, processor = shared()
    batch = {name: value for name, value in processor([CONVERSATIONS[0]]).items() if name != "segments"}
    batch["visual_index"] = batch["visual_index"].clone()
    batch["visual_index"][0, 0] = -7
    with pytest.raises(FusionError, match="sample 0: visual_index -7, expected the number of a visual token from 0 up, or -1 for none"):
        model(**batch)


def test_a_prompt_of_a_million_characters_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"the prompt has .* tokens, more than the .* positions of the language model"):
        shared()[0].chat(shared()[1], PHOTO, "a" * 10**6, max_new_tokens=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("place", [0, 1, 63, 258])
def test_one_logit_that_is_no_number_is_found_anywhere(dtype: torch.dtype, place: int) -> None:
    logits = torch.full((2, 1, 259), torch.finfo(dtype).max, dtype=dtype)
    logits[1, 0, 100:120] = -torch.inf  # tokens that may not come
    refuse_numberless(logits)
    for value in (torch.nan, torch.inf):
        broken = logits.clone()
        broken[1, 0, place] = value
        with pytest.raises(FloatingPointError, match="the logits are not finite"):
            refuse_numberless(broken)
