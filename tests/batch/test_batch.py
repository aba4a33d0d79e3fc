"""A batch is cut by rows: what a model answers for a row is what it answers within the whole batch."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import vlmkit
from tests.counted import TINY_MODELS
from tests.tiny import CONVERSATIONS, apart, assistant, draw, picture, shared, user
from vlmkit.batch.batch import Batch
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor

TINY = vlmkit.list_models("*-tiny")


@functools.cache
def named(name: str) -> tuple[VLM, VLMProcessor]:
    arch = vlmkit.architecture(name)
    built = vlmkit.build(arch, seed=0).eval()
    draw(built)
    return built, vlmkit.build_processor(arch)


def rows(made: VLM, batch: Any) -> torch.Tensor:
    """Logits (B, S, vocabulary) of tokens, padding left out."""
    with torch.no_grad():
        logits = made(**batch).logits
    return logits * batch["attention_mask"][..., None]


MIXED = [
    [user(picture(60, 60, 2), "and", picture(30, 90, 3), "differ?"), assistant("Yes.")],
    [user("No picture?"), assistant("No.")],
    [user(picture(56, 84, 1), "what?"), assistant("A cat.")],
]
"""Two images, none, one."""


@settings(max_examples=10, deadline=None)
@given(st.slices(4), st.sampled_from(["left", "right"]))
def test_a_slice_is_answered_as_within_the_batch(cut: slice, side: str) -> None:
    built, processor = shared()
    batch = processor(CONVERSATIONS, padding_side=side, add_generation_prompt=False)
    if not range(4)[cut]:
        with pytest.raises(IndexError, match="a batch has at least one row"):
            batch[cut]
        return
    assert apart(rows(built, batch[cut]), rows(built, batch)[list(range(4)[cut])]) < 1e-5


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(-4, 3), min_size=1, max_size=6))
def test_rows_are_taken_in_any_order_and_again(numbers: list[int]) -> None:
    built, processor = shared()
    batch = processor(CONVERSATIONS)
    found = batch[numbers]
    assert apart(rows(built, found), rows(built, batch)[numbers]) < 1e-5
    images = sum((1, 0, 2, 2)[number] for number in {number % 4 for number in numbers})
    assert len(found.get("grids", ())) == images


@pytest.mark.parametrize("mask", [[True, False, True, False], [False, True, False, False]])
@pytest.mark.parametrize("made", [list, np.array, torch.tensor])
def test_truth_values_choose_rows_and_are_no_numbers(made: Callable[[list[bool]], Any], mask: list[bool]) -> None:
    batch = shared()[1](CONVERSATIONS)
    chosen = [row for row, taken in enumerate(mask) if taken]
    found, expected = batch[made(mask)], batch[chosen]
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_truth_values_that_are_not_one_a_row_are_refused() -> None:
    batch = shared()[1](CONVERSATIONS)
    with pytest.raises(IndexError, match=r"2 truth values of rows of a batch of 4 rows; give one for each row"):
        batch[torch.tensor([True, False])]
    with pytest.raises(IndexError, match=r"a batch has at least one row"):
        batch[np.zeros(4, dtype=bool)]


@pytest.mark.parametrize("name", TINY)
def test_a_row_of_every_named_model_takes_its_images_with_it(name: str) -> None:
    built, processor = named(name)
    batch = processor(MIXED)
    before = {key: value.clone() for key, value in batch.items()}
    whole = rows(built, batch)
    for number in range(3):
        found = batch[number]
        assert ("pixel_values" in found) == (number != 1)
        assert apart(rows(built, found)[0], whole[number]) < 1e-4, f"row {number}"
    assert all(torch.equal(before[key], value) for key, value in batch.items())


def test_so_many_models_are_cut() -> None:
    assert len(TINY) == TINY_MODELS


def test_packed_rows_are_cut_too() -> None:
    built, processor = shared()
    samples = [processor.sample(conversation) for conversation in CONVERSATIONS]
    batch = processor.pack_rows([samples[:2], samples[2:]])
    with torch.no_grad():
        whole = built(**batch).logits
        assert apart(built(**batch[1]).logits, whole[1:]) < 1e-5
    assert batch[1]["boundaries"][0] == 0


def test_labels_say_anew_which_columns_are_supervised() -> None:
    built, processor = shared()
    batch = processor(CONVERSATIONS)
    made = copy.deepcopy(built).train()
    for number in range(4):
        assert made(**batch[number]).loss.item() == pytest.approx(built(**batch[number] | {"supervised": None}).loss.item(), abs=1e-5)


def test_what_a_batch_holds_is_pickled_with_it_and_moved() -> None:
    _, processor = shared()
    batch = processor(CONVERSATIONS)
    again = pickle.loads(pickle.dumps(batch))
    assert isinstance(again, Batch)
    assert torch.equal(again[2]["pixel_values"], batch[2]["pixel_values"])
    assert torch.equal(batch.to("cpu")[2:]["visual_index"], batch[[2, 3]]["visual_index"])


@pytest.mark.parametrize("row", [4, -5, [0, 9]])
def test_no_such_row(row: Any) -> None:
    with pytest.raises(IndexError, match="of a batch of 4 rows"):
        shared()[1](CONVERSATIONS)[row]
