"""Frames of a film become patches one after the other, and patches are those of transformers' processor of Qwen2-VL."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

from tests.photos import picture
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD
from vlmkit.preprocess import Size, policies, render, render_clip
from vlmkit.preprocess.policies.smart_resize import ClipPixels

LEAST, MOST = 4 * 28 * 28, 12 * 28 * 28
POLICY = policies["smart_resize"](clip=ClipPixels(min_pixels=LEAST, max_pixels=MOST, total_pixels=None))
TILES = policies["anyres"](size=28, grids=((1, 2), (2, 1)))


def film(frames: int, height: int, width: int) -> np.ndarray:
    """(F, H, W, 3): a photograph that moves."""
    photo = np.asarray(picture("astronaut").resize((width + frames, height)))
    return np.stack([photo[:, number : number + width] for number in range(frames)])


def times(frames: int) -> tuple[float, ...]:
    return tuple(number / 2 for number in range(frames))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(8, 300), st.integers(8, 300))
def test_patches_are_those_of_transformers_qwen2_vl(frames, height, width):
    """Odd numbers of frames included. Measured: no pixel differs in 8 bits; 1e-6 after normalisation."""
    shown = film(frames, height, width)
    processor = Qwen2VLVideoProcessor(size={"shortest_edge": LEAST, "longest_edge": MOST}, cap_pixels_per_frame=False)
    theirs = processor(videos=[torch.from_numpy(shown).permute(0, 3, 1, 2)], return_tensors="pt")
    plan = POLICY.plan_clip(Size(height, width), times(frames))
    options = {"patch": 14, "patch_frames": 2, "clips": True}
    ours, grids = render_clip(shown, plan, **options, mean=CLIP_MEAN, std=CLIP_STD)
    assert grids.tolist() == theirs["video_grid_thw"].tolist()
    deep, rows, columns = grids[0].tolist()
    # Theirs stand in blocks of 2x2 patches that are merged later.
    blocks = theirs["pixel_values_videos"].view(deep, rows // 2, columns // 2, 2, 2, -1).transpose(2, 3).reshape(len(ours), -1)
    assert (ours - blocks).abs().max() < 1e-5
    assert torch.equal(render_clip(shown, plan, **options)[0], (blocks * std() + mean()).mul(255).round().to(torch.uint8))


def mean() -> torch.Tensor:
    return torch.tensor(CLIP_MEAN).repeat_interleave(2 * 14 * 14)


def std() -> torch.Tensor:
    return torch.tensor(CLIP_STD).repeat_interleave(2 * 14 * 14)


@pytest.mark.parametrize("policy", [POLICY, TILES], ids=lambda policy: policy.kind)
@pytest.mark.parametrize("patch_frames", [1, 2])
def test_without_clips_every_frame_is_rendered_as_a_picture(policy, patch_frames):
    shown = film(3, 40, 90)
    plan = policy.plan_clip(Size(40, 90), times(3))
    still = (
        policy.plan(Size(40, 90)) if policy is TILES else POLICY.replace(clip=None, min_pixels=LEAST, max_pixels=MOST).plan(Size(40, 90))
    )
    parts = [render(frame, still, patch=14, patch_frames=patch_frames) for frame in shown]
    patches, grids = render_clip(iter(shown), plan, patch=14, patch_frames=patch_frames)
    assert torch.equal(patches, torch.cat([part for part, _ in parts]))
    assert torch.equal(grids, torch.cat([part for _, part in parts]))
    assert patches.shape == (sum(grid.tokens for grid in plan.grids(14, patch_frames)), 3 * patch_frames * 14 * 14)


@pytest.mark.parametrize(("frames", "patch_frames"), [(5, 1), (5, 2), (6, 3), (1, 2), (7, 4)])
def test_each_view_of_a_clip_holds_its_frames_one_behind_the_other(frames, patch_frames):
    shown = film(frames, 40, 90)
    plan = TILES.plan_clip(Size(40, 90), times(frames))
    grids = plan.grids(14, patch_frames, clips=True)
    assert len(grids) == len(plan.views) == 3
    patches, _ = render_clip(shown, plan, patch=14, patch_frames=patch_frames, clips=True)
    alone = [render(frame, TILES.plan(Size(40, 90)), patch=14)[0].split([view.grid(14).tokens for view in plan.views]) for frame in shown]
    for view, (grid, part) in enumerate(zip(grids, patches.split([grid.tokens for grid in grids]), strict=True)):
        cells = part.view(grid.frames, grid.rows * grid.columns, 3, patch_frames, 14 * 14)
        for number in range(grid.frames * patch_frames):
            found = cells[number // patch_frames, :, :, number % patch_frames].flatten(1)
            assert torch.equal(found, alone[min(number, frames - 1)][view])


def test_a_picture_stands_in_every_frame_of_a_patch():
    photo, plan = film(1, 40, 90)[0], TILES.plan(Size(40, 90))
    once, grids = render(photo, plan, patch=14)
    thrice, same = render(photo, plan, patch=14, patch_frames=3)
    cells = thrice.view(len(once), 3, 3, 14 * 14)
    assert all(torch.equal(cells[:, :, number].flatten(1), once) for number in range(3))
    assert torch.equal(grids, same)
    normal, _ = render(photo, plan, patch=14, patch_frames=3, mean=CLIP_MEAN, std=CLIP_STD)
    assert torch.equal(normal.view(-1, 3, 3, 196)[:, :, 1].flatten(1), render(photo, plan, patch=14, mean=CLIP_MEAN, std=CLIP_STD)[0])


def test_one_frame_lives_at_a_time():
    alive: list[int] = []
    held = 0

    def frames():
        nonlocal held
        for number in range(20):
            held = max(held, len(alive))
            made = film(1, 60, 60)[0]
            alive.append(number)
            weakref.finalize(made, alive.remove, number)
            yield made
            del made

    render_clip(frames(), POLICY.plan_clip(Size(60, 60), times(20)), patch=14, patch_frames=2, clips=True)
    assert held <= 1


def test_patches_are_written_where_they_are_wanted():
    shown, plan = film(3, 60, 60), POLICY.plan_clip(Size(60, 60), times(3))
    expected, _ = render_clip(shown, plan, patch=14, patch_frames=2, clips=True)
    out = torch.empty_like(expected)
    found, _ = render_clip(shown, plan, patch=14, patch_frames=2, clips=True, out=out)
    assert found.data_ptr() == out.data_ptr()
    assert torch.equal(out, expected)


def test_frames_that_were_not_planned_are_refused():
    shown, plan = film(4, 60, 60), POLICY.plan_clip(Size(60, 60), times(3))
    for frames, message in (
        (shown, r"the plan is for 3 frame\(s\) of a film, but there are more"),
        (shown[:2], "the plan is for 3 frames of a film, but there are 2"),
        ([], "the plan is for 3 frames of a film, but there are 0"),
        (film(3, 60, 61), "the plan is for an image of 60x60, but the image is 60x61"),
    ):
        with pytest.raises(ValueError, match=message):
            render_clip(frames, plan, patch=14)
    with pytest.raises(ValueError, match=r"the plan is for a film of 3 frame\(s\), render its frames with render_clip"):
        render(shown[0], plan, patch=14)
    with pytest.raises(ValueError, match="the plan is for a picture, render it with render"):
        render_clip(shown, POLICY.plan(Size(60, 60)), patch=14)
