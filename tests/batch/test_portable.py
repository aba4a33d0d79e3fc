"""The form of a batch that others pad, cut, put one behind the other and extend: what a model makes of it is what it makes of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers.pipelines.base import pad_collate_fn

import vlmkit
from tests.batch.test_batch import MIXED, TINY, named, rows
from tests.counted import TINY_MODELS
from tests.tiny import CONVERSATIONS, PROMPTS, apart, assistant, picture, shared, user
from vlmkit.fusion.incoming import FusionError
from vlmkit.layout.laid_out import LayoutError

ONE_EACH = [[user(picture(56, 84, 1), "what?")], [user(picture(60, 60, 2), "and what is it that stands there?")]]
"""Questions of two lengths with an image each, as pipelines put them together."""


def generated(built: Any, batch: Any) -> list[list[int]]:
    found = built.generate(**batch, max_new_tokens=4, do_sample=False, pad_token_id=0)
    return [row.tolist() for row in found[:, batch["input_ids"].shape[1] :]]


@pytest.mark.parametrize("name", TINY)
def test_every_named_model_reads_both_forms_alike(name: str) -> None:
    built, processor = named(name)
    for side in ("left", "right"):
        options = {"padding_side": side, "add_generation_prompt": False}
        own, others = processor(MIXED, **options), processor(MIXED, portable_form=True, **options)
        whole = rows(built, own)
        assert apart(rows(built, others), whole) < 1e-4
        # It is cut, and carried on, by those who know nothing of it.
        assert apart(rows(built, others[1:]), whole[1:]) < 1e-4


@pytest.mark.parametrize("name", TINY)
def test_every_named_model_answers_questions_that_were_put_together(name: str) -> None:
    built, processor = named(name)
    apart_ = [processor.apply_chat_template(row, add_generation_prompt=True, return_tensors="pt") for row in ONE_EACH]
    processor.tokenizer.pad_token_id = processor.pad_token_id
    together = pad_collate_fn(processor.tokenizer, processor.image_processor)(apart_)
    assert generated(built, together) == [generated(built, batch)[0] for batch in apart_]


def test_so_many_models_read_both() -> None:
    assert len(TINY) == TINY_MODELS


@pytest.mark.parametrize("name", TINY)
def test_an_answer_is_added_to_a_question_with_zeros(name: str) -> None:
    """As TRL puts a batch together: prompts on their right, answers behind them."""
    built, processor = named(name)
    conversation = [*ONE_EACH[0], assistant("A cat.")]
    own = processor([conversation])
    asked = processor.apply_chat_template(ONE_EACH[0], add_generation_prompt=True, return_tensors="pt")
    begin = asked["input_ids"].shape[1]
    ids: Tensor = own["input_ids"]
    assert torch.equal(ids[:, :begin], asked["input_ids"])
    extended = dict(asked) | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    extended["mm_token_type_ids"] = functional.pad(asked["mm_token_type_ids"], (0, ids.shape[1] - begin))
    assert apart(rows(built, extended), rows(built, own)) < 1e-4


@pytest.mark.parametrize("name", TINY)
def test_a_conversation_as_a_string_is_laid_out_as_it_is(name: str) -> None:
    _, processor = named(name)
    for conversation in (*ONE_EACH, [*ONE_EACH[0], assistant("A cat."), user("sure?")], [user("No picture?")]):
        text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        assert isinstance(text, str)
        images = [item["image"] for message in conversation for item in message["content"] if isinstance(item, dict) and "image" in item]
        wanted = processor.apply_chat_template(conversation, add_generation_prompt=True)
        for special in (True, False):
            found = processor(text=text, images=images or None, trusted=True, add_special_tokens=special, return_tensors=None)
            assert found["input_ids"] == wanted["input_ids"], text


def test_a_string_says_no_more_than_its_conversation_does() -> None:
    _, processor = shared()
    with pytest.raises(LayoutError, match=r"'a <.image.> b' spells a special token"):
        processor.apply_chat_template([user("a <|image|> b")], tokenize=False)
    with pytest.raises(LayoutError, match="together with what stands beside them"):
        processor.apply_chat_template([user("a <|im", "age|> b")], tokenize=False)
    texts = processor.apply_chat_template(PROMPTS, tokenize=False, add_generation_prompt=True)
    assert [text.count("<|image|>") for text in texts] == [1, 0, 2, 2]


def test_texts_are_whole_prompts_where_the_processor_was_told_so() -> None:
    processor = vlmkit.build_processor(shared()[1].spec)
    text = processor.apply_chat_template(ONE_EACH[0], tokenize=False, add_generation_prompt=True)
    image = ONE_EACH[0][0]["content"][0]["image"]
    with pytest.raises(LayoutError, match="pass trusted=True"):
        processor(text=text, images=image)
    processor.trusts_text = True
    assert torch.equal(processor(text=text, images=image)["input_ids"], processor(ONE_EACH[0])["input_ids"])


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(0, 5), st.integers(0, 5))
def test_rows_of_several_batches_are_put_one_behind_the_other(numbers: list[int], left: int, right: int) -> None:
    built, processor = shared()
    batches = [processor([CONVERSATIONS[number]], portable_form=True, add_generation_prompt=False) for number in numbers]
    longest = max(batch["input_ids"].shape[1] for batch in batches)
    joined: dict[str, Tensor] = {}
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        padded = [functional.pad(batch[name], (left, longest - batch[name].shape[1] + right)) for batch in batches]
        joined[name] = torch.cat(padded)
    for name in ("pixel_values", "image_grid_thw"):
        found = [batch[name] for batch in batches if name in batch]
        joined |= {name: torch.cat(found)} if found else {}
    logits = rows(built, joined)
    for row, batch in enumerate(batches):
        assert apart(logits[row, left : left + batch["input_ids"].shape[1]], rows(built, batch)[0]) < 1e-5


def test_what_went_missing_is_said() -> None:
    built, processor = shared()
    batch = dict(processor(ONE_EACH, portable_form=True))
    for missing, message in {
        "pixel_values": "but the batch has no pixel_values",
        "image_grid_thw": "the batch has no pixel_values with image_grid_thw",
    }.items():
        with pytest.raises(FusionError, match=message):
            built(**{name: value for name, value in batch.items() if name != missing})
    with pytest.raises(FusionError, match="whoever adds tokens to a row adds zeros there"):
        built(**batch | {"mm_token_type_ids": batch["mm_token_type_ids"][:, 1:]})
    with pytest.raises(FusionError, match=r"refers to visual token \d+ of its images"):
        built(**batch | {"mm_token_type_ids": batch["mm_token_type_ids"] * 3, "visual_counts": None})
    first = {name: batch[name][:1] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
    with pytest.raises(FusionError, match="but the images of the batch gave 10: rows and images were parted"):
        built(**batch | first)
