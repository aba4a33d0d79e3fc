"""Films beside the rules of qwen-vl-utils and of transformers: the size of their frames; what every policy does with a film."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from qwen_vl_utils import vision_process as published
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.video_llama_3.video_processing_video_llama_3 import VideoLlama3VideoProcessor
from transformers.video_processing_utils import BaseVideoProcessor

from tests.preprocess.policies.test_policies import drawn_policies, planned, sizes
from vlmkit.features import Grid
from vlmkit.preprocess import Clip, ImageSizeError, Sampling, Size, policies
from vlmkit.preprocess.policies.smart_resize import ClipPixels
from vlmkit.spec import SpecError

SmartResize = policies["smart_resize"]
EVERY = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}

sides = st.integers(1, 4320) | st.integers(1, 300).map(lambda number: 14 * number)
bounds = st.integers(1, 10_000_000) | st.integers(1, 1000).map(lambda number: 784 * number)


def blank(frames: int, height: int, width: int) -> torch.Tensor:
    """(F, 3, H, W) in the memory of one pixel."""
    return torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(frames, 3, height, width)


def size_of(policy, height, width, frames):
    (view,) = policy.plan_clip(Size(height, width), tuple(map(float, range(frames)))).views
    return [view.height, view.width]


@settings(max_examples=1000, **EVERY)
@given(sides, sides, st.integers(2, 20_000), st.floats(1, 120), st.none() | bounds, st.none() | bounds)
@example(1080, 1920, 20_000, 30.0, None, None)
def test_a_film_is_that_of_qwen_vl_utils_from_its_file_to_its_plan(monkeypatch, height, width, total, fps, least, budget):
    assume(max(height, width) <= 200 * min(height, width))
    asked = {name: value for name, value in (("min_pixels", least), ("total_pixels", budget)) if value is not None}
    policy = SmartResize(clip=ClipPixels(**asked, max_pixels=max(602112, least or 0)))
    assume(least is None or least <= 602112)
    resized: list[list[int]] = []

    def read(_path: str, **_options: object) -> tuple[torch.Tensor, None, dict[str, float]]:
        return torch.zeros(total, 1, dtype=torch.uint8), None, {"video_fps": fps}

    def note(video: torch.Tensor, size: list[int], **_options: object) -> torch.Tensor:
        resized.append(size)
        return video[:, :1, :1, :1]

    def reader(item: dict[str, object]) -> tuple[torch.Tensor, dict[str, object], float]:
        video, metadata, sampled = published._read_video_torchvision(item)
        return blank(len(video), height, width), metadata, sampled

    monkeypatch.setattr(published, "io", SimpleNamespace(read_video=read))
    monkeypatch.setattr(published, "get_video_reader_backend", lambda: "ours")
    monkeypatch.setitem(published.VIDEO_READER_BACKENDS, "ours", reader)
    monkeypatch.setattr(published.transforms.functional, "resize", note)
    _, metadata = published.fetch_video({"video": "a.mp4"} | asked, return_video_metadata=True)
    sampling = Sampling()
    indices = sampling.indices(total, fps)
    assert metadata["frames_indices"].tolist() == list(indices)
    (view,) = policy.plan_clip(Size(height, width), sampling.times(total, fps)).views
    # Theirs rounds sides of thin frames down to nothing and begins with at least one square; ours is transformers' rule.
    assume(min(resized[0]) > 0 and min(round(height / 28), round(width / 28)) > 0)
    assert [view.height, view.width] == resized[0]


def of_transformers(monkeypatch, processor, frames, height, width, factor, **options):
    """The size that a video processor of transformers resizes to."""
    found = []
    monkeypatch.setattr(BaseVideoProcessor, "resize", lambda _self, image, size, **_options: found.append([size.height, size.width]))
    processor.resize(blank(frames, height, width)[None], processor.size, None, factor=factor, **options)
    return found[0]


@settings(max_examples=500, **EVERY)
@given(sides, sides, st.integers(1, 800), bounds, bounds, st.sampled_from([None, 1, 1000, 16_000, 128_000]))
def test_frames_have_the_size_of_transformers_qwen2_vl(monkeypatch, height, width, frames, one, other, tokens):
    assume(max(height, width) <= 200 * min(height, width))
    least, most = sorted((one, other))
    processor = Qwen2VLVideoProcessor(size={"shortest_edge": least, "longest_edge": most}, max_video_tokens=tokens or 1)
    total = None if tokens is None else int(tokens * 784 * 0.9)
    policy = SmartResize(clip=ClipPixels(min_pixels=least, max_pixels=most, total_pixels=total, whole=True))
    capped = {"temporal_factor": 2, "cap_pixels_per_frame": tokens is not None}
    expected = of_transformers(monkeypatch, processor, frames, height, width, 28, **capped)
    assert size_of(policy, height, width, frames) == expected


@settings(max_examples=500, **EVERY)
@given(sides, sides, st.integers(1, 800), bounds, bounds)
def test_frames_have_the_size_of_transformers_videollama3(monkeypatch, height, width, frames, one, other):
    assume(max(height, width) <= 200 * min(height, width))
    least, most = sorted((one, other))
    assume(most >= frames)
    processor = VideoLlama3VideoProcessor(size={"shortest_edge": least, "longest_edge": most})
    clip = ClipPixels(factor=28, min_pixels=least, max_pixels=most, total_pixels=most, frames_per_share=1, least=0.0, whole=True)
    policy = SmartResize(factor=14, clip=clip)
    assert size_of(policy, height, width, frames) == of_transformers(monkeypatch, processor, frames, height, width, 28)


@settings(max_examples=300, deadline=None)
@given(drawn_policies(), sizes, st.integers(1, 20))
def test_a_film_is_cut_as_a_picture_where_a_policy_has_no_rule_for_films(policy, size, frames):
    plan = planned(policy, size)
    times = tuple(number / 2 for number in range(frames))
    if plan is None:
        with pytest.raises(ImageSizeError):
            policy.plan_clip(size, times)
        return
    film = policy.plan_clip(size, times)
    assert (film.source, film.renders, film.times, film.frames) == (plan.source, plan.renders, times, frames)
    assert (plan.frames, plan.times) == (1, ())
    (each,) = {view.grid(1) for view in plan.views[:1]}
    assert plan.grids(1, 2, clips=True)[0] == plan.grids(1)[0] == each
    assert film.grids(1) == film.grids(1, 2) == plan.grids(1) * frames
    assert film.grids(1, 2, clips=True) == tuple(Grid(math.ceil(frames / 2), grid.rows, grid.columns) for grid in plan.grids(1))


def test_worked_films():
    clip = Clip(seconds=20, fps=30, size=Size(1080, 1920))
    assert str(clip) == "20s@30fps,1920x1080"
    times = Sampling().times(clip.frames, clip.fps)
    plan = SmartResize(clip=ClipPixels()).plan_clip(clip.size, times)
    assert (plan.frames, plan.views, plan.grids(14, 2, clips=True)) == (40, (Size(560, 1008),), (Grid(20, 40, 72),))
    assert Clip(0.001, 25.0, clip.size).frames == 1
    long = SmartResize(clip=ClipPixels()).plan_clip(clip.size, tuple(map(float, range(768))))
    assert long.views == (Size(336, 644),)
    assert sum(view.pixels for view in long.views) * 768 / 2 <= ClipPixels().total_pixels


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((0, 30, Size(4, 4)), "a clip's seconds are a number above 0, got 0"),
        ((20, math.inf, Size(4, 4)), "a clip's fps are a number above 0, got inf"),
        ((True, 30, Size(4, 4)), "a clip's seconds are a number above 0, got True"),
        ((20, 30, (4, 4)), r"a clip's size is a Size such as Size\(1080, 1920\), got \(4, 4\)"),
    ],
)
def test_what_is_no_clip_is_refused(fields, message):
    with pytest.raises(ImageSizeError, match=message):
        Clip(*fields)


@pytest.mark.parametrize("times", [(), (1.0, 0.5)])
def test_a_film_shows_frames_in_their_order(times):
    for policy in (SmartResize(), SmartResize(clip=ClipPixels())):
        with pytest.raises(ImageSizeError, match=r"at least one frame, and its frames in the order of their times, got \d frame"):
            policy.plan_clip(Size(100, 100), times)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"factor": 0}, "clip.factor: expected 1 or more, or None, got 0"),
        ({"min_pixels": 9, "max_pixels": 8}, "clip: expected 1 <= min_pixels <= max_pixels, got 9 and 8"),
        ({"total_pixels": 0}, "clip.total_pixels: expected 1 or more pixels, or None, got 0"),
        ({"frames_per_share": 0}, "clip.frames_per_share: expected 1 or more, got 0"),
        ({"least": -1.0}, "clip.least: expected 0 or more, got -1"),
    ],
)
def test_bounds_of_nothing_are_refused(fields, message):
    with pytest.raises(SpecError) as caught:
        ClipPixels(**fields)
    assert str(caught.value) == message
    policy = SmartResize(clip=ClipPixels(factor=56))
    assert SmartResize.from_json(policy.to_json()) == policy
