"""Assisted decoding through transformers: a model of fewer layers, words alone, or the prompt guess; the answer stays the greedy one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import vlmkit
from tests.counted import TINY_MODELS
from tests.tiny import draw, picture, user

NEW: dict[str, Any] = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False}
MODELS = vlmkit.list_models("*-tiny")


def test_every_small_model_is_assisted() -> None:
    assert len(MODELS) == TINY_MODELS


@pytest.mark.parametrize("name", MODELS)
def test_assistants_of_both_kinds_and_the_prompt_leave_the_greedy_answer_as_it_is(name: str) -> None:
    built, processor = vlmkit.build(name, seed=0), vlmkit.build_processor(name)
    draw(built)
    small = vlmkit.build(name, seed=1)
    draw(small, seed=1)
    with torch.no_grad():  # like the model, and not quite: some guesses are right and some are not
        for guess, weight in zip(small.parameters(), built.parameters(), strict=True):
            guess.copy_(weight + 0.03 * guess)
    conversation = [user(picture(90, 70, seed=3), "How many cats, how many cats?")]
    batch = processor([conversation])
    greedy = built.generate(**batch, **NEW)
    calls: list[int] = []
    hook = built.language_model.register_forward_pre_hook(lambda module, inputs: calls.append(1))
    # Guesses of the model itself are all right if it is asked what the model was asked, the image and its positions among it.
    assert torch.equal(built.generate(**batch, **NEW, assistant_model=twin(built, name)), greedy)
    assert len(calls) <= 3
    hook.remove()
    assert torch.equal(built.generate(**batch, **NEW, assistant_model=small), greedy)
    assert torch.equal(built.generate(**batch, **NEW, assistant_model=small.language_model), greedy)
    assert torch.equal(built.generate(**batch, **NEW, prompt_lookup_num_tokens=3), greedy)
    carried = processor.apply_chat_template([conversation], return_tensors="pt")
    assert torch.equal(built.generate(**carried, **NEW, assistant_model=small), greedy)


def twin(built: Any, name: str) -> Any:
    """Another model of the same weights, which assists without leaving a trace in the hooks of the first."""
    other = vlmkit.build(name, seed=1)
    other.load_state_dict(built.state_dict())
    other.generation_config.num_assistant_tokens = 5
    other.generation_config.num_assistant_tokens_schedule = "constant"
    other.generation_config.assistant_confidence_threshold = 0.0
    return other


def test_sampling_with_an_assistant_is_reproduced_by_its_seed() -> None:
    built, processor = vlmkit.build("univa-vl-tiny", seed=0), vlmkit.build_processor("univa-vl-tiny")
    draw(built)
    batch = processor([[user(picture(seed=3), "What?")]])

    def sampled(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return built.generate(**batch, max_new_tokens=8, do_sample=True, assistant_model=twin(built, "univa-vl-tiny"))

    assert torch.equal(sampled(1), sampled(1))
    assert not torch.equal(sampled(1), sampled(2))
