from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import vlmkit
from tests.training.conftest import small
from vlmkit.layout.laid_out import IGNORE
from vlmkit.training.meters import CLOCKED, CountedBatches, Counts, Meters, counts, sample_lengths

numbers = st.floats(0, 1e12)
any_counts = st.builds(Counts, **dict.fromkeys(("samples", "tokens", "places", "supervised", "images", "patches", "waited"), numbers))


def rows_of(lengths: list[int], side: str = "right") -> dict[str, Tensor]:
    """Padded rows of so many tokens, the second half of each supervised."""
    longest = max(lengths)
    mask, labels = torch.zeros(len(lengths), longest, dtype=torch.long), torch.full((len(lengths), longest), IGNORE)
    for row, length in enumerate(lengths):
        place = slice(0, length) if side == "right" else slice(longest - length, longest)
        mask[row, place] = 1
        labels[row, place.start + length // 2 : place.stop] = 1
    return {"input_ids": torch.zeros_like(mask), "attention_mask": mask, "labels": labels}


@pytest.fixture(scope="module")
def processor() -> vlmkit.VLMProcessor:
    return vlmkit.build_processor(small())


def conversations() -> list[list[dict]]:
    image = np.zeros((112, 112, 3), np.uint8)
    questions = ("a?", "what is this?", "which of all the letters?")
    return [
        [
            {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]},
            {"role": "assistant", "content": "b"},
        ]
        for text in questions
    ]


@given(st.lists(any_counts, max_size=4), any_counts)
def test_counts_are_lists_of_floats_and_add_up(several, one):
    assert Counts.from_list(one.to_list()) == one
    total = sum(several, Counts())
    for place, value in enumerate(total.to_list()):
        assert value == pytest.approx(sum(each.to_list()[place] for each in several))
    assert one + Counts() == one
    with pytest.raises(ValueError, match="8 numbers"):
        Counts.from_list([1.0])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.sampled_from(["left", "right"]))
def test_padded_rows_hold_as_many_tokens_as_their_masks(lengths, side):
    batch = rows_of(lengths, side)
    found = counts(batch)
    assert sample_lengths(batch).tolist() == lengths
    assert (found.samples, found.tokens, found.places) == (len(lengths), sum(lengths), len(lengths) * max(lengths))


def test_packed_and_padded_batches_of_the_same_samples_differ_in_their_padding_alone(processor):
    samples = [processor.sample(conversation) for conversation in conversations()]
    padded, packed = counts(processor.collate(samples)), counts(processor.pack_rows([samples[:2], samples[2:]]))
    for name in ("samples", "tokens", "images", "patches", "supervised"):
        assert getattr(padded, name) == getattr(packed, name) > 0, name
    assert padded.samples == padded.images == 3
    assert padded.tokens < padded.places
    assert packed.tokens < packed.places


def test_nothing_is_read_from_a_device(processor):
    batch = processor(conversations())
    there = counts({name: value.to("meta") for name, value in batch.items()})  # reading one of these raises
    here = counts(batch)
    assert (there.places, there.patches, there.images) == (here.places, here.patches, here.images)
    assert there.tokens == there.places
    assert there.supervised == 0


def test_a_batch_of_pixels_alone_is_counted_by_its_images():
    found = counts({"pixel_values": torch.zeros(40, 588, dtype=torch.uint8), "grids": torch.tensor([[1, 4, 5], [1, 4, 5]])})
    assert (found.samples, found.images, found.patches, found.places) == (2, 2, 40, 0)
    record = Meters().step(found, 0.5)
    assert record["images_per_second"] == 4
    assert not {"tokens", "tokens_per_second", "padding", "mfu", "flops_per_second"} & record.keys()


def test_views_of_one_image_are_one_image_where_the_batch_says_so():
    grids = torch.ones(5, 3, dtype=torch.long)
    places = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 0], [0, -1, -1, 0], [1, 0, 0, 0], [1, 0, 1, 0]])
    assert counts({"grids": grids}).images == 5
    assert counts({"grids": grids, "places": places}).images == 2


def test_waiting_is_what_the_batches_took():
    def slow() -> Iterator[dict[str, Tensor]]:
        while True:
            time.sleep(0.02)
            yield rows_of([3, 5])

    batches = CountedBatches(slow(), flops=lambda batch: 100.0)
    begun = time.perf_counter()
    for _ in range(3):
        next(batches)
    took = time.perf_counter() - begun
    taken = batches.take()
    assert (taken.tokens, taken.places, taken.flops) == (24, 30, 300)
    assert 0.06 <= taken.waited <= took
    assert batches.take() == Counts()


def test_a_record_holds_rates_over_all_processes():
    found = Counts(samples=8, tokens=750, places=1000, supervised=200, images=6, flops=4e9, waited=1.0)
    record = Meters(processes=2, peak=1e10).step(found, 2.0)
    wanted = {
        "tokens": 750,
        "supervised": 200,
        "samples_per_second": 4,
        "tokens_per_second": 375,
        "images_per_second": 3,
        "padding": 0.25,
        "waiting": 0.25,
        "flops_per_second": 2e9,
        "mfu": 0.1,
    }
    memory = record.pop("memory")
    assert record == pytest.approx(wanted)
    assert 1e7 < memory < 1e12
    assert record.keys() - CLOCKED == {"tokens", "supervised", "padding"}


def test_on_a_cpu_no_peak_is_known_and_no_mfu_told():
    record = Meters().step(Counts(samples=1, flops=1e9), 1.0)
    assert record["flops_per_second"] == 1e9
    assert "mfu" not in record


@given(st.lists(st.floats(0.01, 5.0), min_size=1, max_size=40))
def test_recent_rates_are_of_the_last_seconds(times):
    meters = Meters(window=4.0)
    for number, seconds in enumerate(times):
        meters.step(Counts(samples=number), seconds)
    kept = next(n for n in range(1, len(times) + 1) if sum(times[-n:]) >= 4.0 - 1e-9 or n == len(times))
    expected = sum(range(len(times) - kept, len(times))) / sum(times[-kept:])
    assert meters.recent()["samples_per_second"] == pytest.approx(expected)
