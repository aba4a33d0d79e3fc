"""Whether a prompt fits a language model is told by the positions that it takes, by `chat` and by what serves."""

from __future__ import annotations

import json
from typing import Any

import pytest

import vlmkit
from tests.serving.speaking import url
from tests.tiny import LANGUAGE_MODELS, architecture, model, picture, user
from vlmkit.layout.laid_out import LayoutError
from vlmkit.layout.positions import positions_taken
from vlmkit.serving.asking import Asking
from vlmkit.serving.errors import RequestError
from vlmkit.serving.limits import Limits
from vlmkit.serving.request import read_request

IMAGES = [picture(seed=number) for number in range(4)]


def small(language: str) -> tuple[Any, Any, Any, int]:
    """A model, its processor, a prompt of four images and the positions that it takes."""
    arch = architecture(language=language)
    built, processor = model(arch), vlmkit.build_processor(arch)
    batch = processor([[user(*IMAGES, "?")]])
    return built, processor, batch, int(batch["position_ids"].max()) + 1


def limit(built: Any, positions: int) -> None:
    for config in (built.language_model.config, built.config.get_text_config()):
        config.max_position_embeddings = positions


@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_a_prompt_is_answered_that_takes_all_positions_and_no_longer_one(language: str) -> None:
    built, processor, batch, taken = small(language)
    assert (taken < batch["input_ids"].shape[1]) == (language == "qwen2_vl_text")
    sample = processor.sample([user(*IMAGES, "?")], add_generation_prompt=True)
    assert positions_taken(sample.layouts[0], [image.tokens for image in sample.images], built.three_positions) == taken
    for form in (batch, processor([[user(*IMAGES, "?")]], portable_form=True)):
        limit(built, taken)
        assert len(built.answers(processor, form, max_new_tokens=2)) == 1
        limit(built, taken - 1)
        with pytest.raises(LayoutError, match=rf"the prompt has {batch['input_ids'].shape[1]} tokens.*more than the {taken - 1} positions"):
            built.answers(processor, form, max_new_tokens=2)


@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_a_served_answer_gets_the_positions_that_are_left(language: str) -> None:
    built, processor, _, taken = small(language)
    shown = [{"type": "image_url", "image_url": {"url": url(image)}} for image in IMAGES]
    message = {"role": "user", "content": [*shown, {"type": "text", "text": "?"}]}
    limit(built, taken + 3)

    def room(tokens: int | None) -> int:
        asking = Asking(built, processor, Limits())
        body = {"model": "small", "messages": [message]} | ({} if tokens is None else {"max_tokens": tokens})
        request = read_request(json.dumps(body).encode(), "small", Limits())
        return asking.job(request, asking.fetch(request), lambda told: None).max_tokens

    assert room(None) == 3
    assert room(3) == 3
    with pytest.raises(RequestError, match="the answer may have 4 more"):
        room(4)
