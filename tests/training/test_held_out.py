"""Samples that are held out: which they are, and what a model makes of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vlmkit
from tests.data.packs import sample
from tests.training.conftest import small
from vlmkit.data.sample import DataError
from vlmkit.data.shards import Shards, ShardWriter
from vlmkit.preprocess.policies.smart_resize import SmartResize
from vlmkit.training.held_out import Chosen, HeldOut, held_out, kept_back, some
from vlmkit.training.sources import mixture
from vlmkit.training.stage import Source, Stage

POCKET = small().replace(policy=SmartResize(min_pixels=4 * 784, max_pixels=8 * 784))
STAGE = Stage(name="all", steps=1, batch_size=2, connector=1e-3, data=(Source(name="a"),))


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    with ShardWriter(tmp_path / "data" / "a") as writer:
        for number in range(11):
            assert writer.write(sample(number))
    return Shards(tmp_path / "data" / "a")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_what_is_held_out_and_the_rest_are_all_samples_once(shards, count):
    kept, rest = Chosen(shards, count), Chosen(shards, count, rest=True)
    assert (len(kept), len(rest)) == (count, 11 - count)
    of_kept, of_rest = ([part[number].id for number in range(len(part))] for part in (kept, rest))
    every = [shards[number].id for number in range(11)]
    assert sorted(of_kept + of_rest) == sorted(every)
    assert of_rest == [name for name in every if name not in of_kept]  # in their order
    distances = {every.index(after) - every.index(before) for before, after in itertools.pairwise(of_kept)}
    assert len(distances) <= 1
    for part in (kept, rest):
        for number in range(len(part)):
            whole = part[number]
            assert part.without_images(number) == replace(whole, images=())
            assert part.images(number) == whole.images
            assert len(part.image_sizes(number)) == len(whole.images)
        with pytest.raises(IndexError):
            part[len(part)]


def test_more_than_half_is_not_held_out(shards):
    with pytest.raises(DataError, match=r"6 samples cannot be held out of 11 in .*; half of them at most"):
        Chosen(shards, 6)
    assert some(shards, 6) is shards
    assert len(some(shards, 4)) == 4


def test_a_mixture_never_shows_what_is_held_out(shards, tmp_path):
    processor = vlmkit.build_processor(POCKET)
    batches = mixture(STAGE, processor, tmp_path / "data", seed=0, hold_out=3).batches()
    shown = set()
    for _ in range(20):
        next(batches)
        shown |= set(batches.taken)
    held = {f"a:{Chosen(shards, 3)[number].id}" for number in range(3)}
    assert shown == {f"a:{shards[number].id}" for number in range(11)} - held


def test_the_loss_is_the_mean_over_all_supervised_tokens(shards, tmp_path):
    """Of one sample at a time, against one batch of all of them. Measured 5e-7, allowed 1e-5."""
    processor, model = vlmkit.build_processor(POCKET), vlmkit.build(POCKET, seed=0).eval()
    with torch.no_grad():
        scores = kept_back(STAGE, processor, tmp_path / "data", 4)(model)
        samples = [Chosen(shards, 4)[number] for number in range(4)]
        shown = [
            [
                {"role": "user", "content": [{"type": "image", "image": one.images[0]}, one.conversations[0][0]["content"][1]]},
                one.conversations[0][1],
            ]
            for one in samples
        ]
        wanted = model(**processor(shown)).loss.item()
    assert scores.keys() == {"a/loss", "a/exact", "a/exact blind"}
    assert scores["a/loss"] == pytest.approx(wanted, abs=1e-5)
    packed = HeldOut(STAGE.replace(pack=True, max_length=256), processor, {"a": Chosen(shards, 4)})
    with torch.no_grad():
        assert packed(model)["a/loss"] == pytest.approx(wanted, abs=1e-5)


def test_samples_that_are_no_questions_have_a_loss_alone(tmp_path):
    with ShardWriter(tmp_path / "a") as writer:
        for number in range(3):
            assert writer.write(replace(sample(number), conversations=([{"role": "assistant", "content": "Words."}],), images=()))
    model = vlmkit.build(POCKET, seed=0).eval()
    with torch.no_grad():
        scores = held_out(STAGE, vlmkit.build_processor(POCKET), tmp_path)(model)
    assert scores.keys() == {"a/loss"}
    assert math.isfinite(scores["a/loss"])


def test_a_directory_without_the_stages_sources_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no shards for any source of stage 'all': a"):
        held_out(STAGE, vlmkit.build_processor(POCKET), tmp_path)
