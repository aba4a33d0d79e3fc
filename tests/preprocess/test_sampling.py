"""Which frames of a film are shown, number for number those of qwen-vl-utils and of transformers."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from qwen_vl_utils import vision_process as published
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.video_llama_3.video_processing_video_llama_3 import VideoLlama3VideoProcessor

from vlmkit.preprocess.sampling import Sampling
from vlmkit.spec import SpecError

totals = st.integers(2, 400) | st.integers(2, 200_000)
rates = st.sampled_from([1.0, 12.5, 15.0, 23.976, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60.0, 120.0]) | st.floats(0.1, 240)
shown = st.sampled_from([0.5, 1.0, 2.0, 4.0]) | st.floats(0.05, 60)
EXACT = 16_000
"""Up to here single precision and whole numbers give the same frames in `torch.arange`."""


@settings(max_examples=600, deadline=None)
@given(totals, rates, shown, st.integers(1, 20), st.none() | st.integers(0, 900), st.none() | st.integers(2, 900))
def test_frames_are_those_of_qwen_vl_utils(total, rate, fps, least, more, number):
    asked = {"fps": fps, "min_frames": least} if number is None else {"nframes": number}
    if more is not None and number is None:
        asked["max_frames"] = least + 2 + more
    try:
        count = published.smart_nframes(asked, total, rate)
    except ValueError:
        # More frames than the film has. Theirs refuses; ours shows what is there.
        assert number is not None
        assert number + 1 >= total
        return
    bounds = {"fps": fps, "min_frames": least, "max_frames": asked.get("max_frames", 768)}
    assume(number is not None or math.ceil(least / 2) * 2 <= bounds["max_frames"])
    sampling = Sampling(**bounds) if number is None else Sampling(frames=number)
    assert sampling.count(total, rate) == count
    expected = torch.linspace(0, total - 1, count).round().long().tolist()  # as every reader of theirs has it
    assert list(sampling.indices(total, rate)) == expected
    assert sampling.times(total, rate) == tuple(index / rate for index in expected)


@settings(max_examples=600, deadline=None)
@given(
    *(st.sampled_from([Qwen2VLVideoProcessor, VideoLlama3VideoProcessor]), st.integers(2, 400) | st.integers(2, EXACT)),
    *(rates, shown, st.integers(1, 3), st.integers(1, 8), st.integers(0, 200), st.none() | st.integers(1, 300)),
)
def test_frames_are_those_of_transformers(kind, total, rate, fps, multiple, least, more, number):
    # Their least number is not rounded up to a whole multiple and then, cut down to one, falls below itself: drawn as a whole multiple.
    least, most = least * multiple, (least + more) * multiple
    assume(multiple <= total and (number is None or 1 <= round(number / multiple) * multiple <= total))
    processor = kind(temporal_patch_size=multiple, min_frames=least, max_frames=most)
    choice = {"fps": fps} if number is None else {"num_frames": number}
    expected = processor.sample_frames(SimpleNamespace(total_num_frames=total, fps=rate), **choice).tolist()
    bounds = {"multiple": multiple, "min_frames": least, "max_frames": most, "spread": "starts"}
    sampling = Sampling(**bounds, fps=fps) if number is None else Sampling(**bounds, frames=number)
    count = sampling.count(total, rate)
    # Rounding in theirs may add one frame behind the film's end.
    assert len(expected) == count or (len(expected) == count + 1 and expected.pop() == total)
    assert list(sampling.indices(total, rate)) == expected


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 300_000), rates, shown, st.integers(1, 8), st.none() | st.integers(8, 300), st.sampled_from(["ends", "starts"]))
def test_frames_are_in_the_film_and_in_order(total, rate, fps, multiple, number, spread):
    sampling = Sampling(fps=fps, frames=number, multiple=multiple, min_frames=multiple, spread=spread)
    indices = sampling.indices(total, rate)
    assert len(indices) == sampling.count(total, rate)
    assert len(indices) == total if total < multiple else len(indices) % multiple == 0
    assert 0 == indices[0] <= indices[-1] < total
    assert len(set(indices)) == len(indices)
    assert list(indices) == sorted(indices)


@pytest.mark.parametrize(
    ("sampling", "total", "expected"),
    [
        (Sampling(), 600, 40),
        (Sampling(), 1, 1),
        (Sampling(), 3, 2),
        (Sampling(frames=8), 600, 8),
        (Sampling(frames=8), 5, 4),
        (Sampling(frames=7), 600, 8),  # 3.5 pairs, halfway to the even number
        (Sampling(multiple=1), 7, 4),
    ],
)
def test_how_many_frames_of_a_film_at_30_frames_a_second(sampling, total, expected):
    assert sampling.count(total, 30.0) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fps": 0.0}, "sampling.fps: expected more than 0 frames a second, got 0"),
        ({"multiple": 0}, "sampling.multiple: expected 1 or more, got 0"),
        ({"frames": 1}, "sampling.frames: 1 frames round to no whole multiple of 2; use 2 or more"),
        ({"min_frames": 0}, "sampling: expected 1 <= min_frames <= max_frames in whole multiples of 2, got 0 and 768"),
        ({"min_frames": 5, "max_frames": 5}, "sampling: expected 1 <= min_frames <= max_frames in whole multiples of 2, got 5 and 5"),
    ],
)
def test_a_sampling_that_shows_nothing_is_refused(fields, message):
    with pytest.raises(SpecError) as caught:
        Sampling(**fields)
    assert str(caught.value) == message
    assert Sampling.from_json(Sampling(fps=1.0, spread="starts").to_json()) == Sampling(fps=1.0, spread="starts")
    with pytest.raises(ValueError, match="at least one frame and more than 0 frames a second, got 0 frames at 30"):
        Sampling().count(0, 30.0)


@given(totals, rates, st.integers(1, 4), st.integers(1, 40))
def test_frames_are_repeated_where_they_stand(total, rate, repeat, frames):
    once = Sampling(frames=frames, multiple=1)
    assert once.replace(repeat=repeat).times(total, rate) == tuple(time for time in once.times(total, rate) for _ in range(repeat))
    with pytest.raises(SpecError, match=r"sampling\.repeat: expected 1 or more, got 0"):
        Sampling(repeat=0)


@given(st.integers(1, 5000), st.integers(1, 128).map(lambda half: 2 * half))
def test_an_even_number_of_frames_are_those_that_tarsier2_shows(total, frames):
    """Its rule: round(i * (total - 1) / (frames - 1)), all of them where there are no more. Only an even number of steps has a half."""
    expected = range(total) if total <= frames else [round(place * (total - 1) / (frames - 1)) for place in range(frames)]
    assert list(Sampling(frames=frames, multiple=1).indices(total, 25.0)) == list(expected)
