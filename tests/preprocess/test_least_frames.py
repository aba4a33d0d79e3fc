"""Films that are shorter than a connector can tell from pictures: their last frame is shown again."""

from __future__ import annotations

import pytest
import torch

import vlmkit
from tests.tiny import picture
from vlmkit.features import Grid
from vlmkit.preprocess.geometry import ImagePlan, Render, Size
from vlmkit.preprocess.pixels import render_clip

SIZE = Size(28, 42)


@pytest.mark.parametrize(("shown", "patch_frames", "least", "deep"), [(1, 1, 2, 2), (1, 2, 2, 2), (3, 1, 2, 3), (3, 2, 4, 4), (2, 1, 1, 2)])
def test_the_last_frame_fills_the_grid(shown: int, patch_frames: int, least: int, deep: int) -> None:
    plan = ImagePlan(SIZE, (Render.whole(SIZE),), tuple(float(number) for number in range(shown)))
    frames = [picture(28, 42, seed) for seed in range(shown)]
    patches, grids = render_clip(frames, plan, patch=14, patch_frames=patch_frames, clips=True, least_frames=least)
    assert grids.tolist() == [[deep, 2, 3]]
    assert plan.grids(14, patch_frames, True, least) == (Grid(deep, 2, 3),)
    # (groups of frames, patches, channel, frame, pixels) -> (frames, ...)
    found = patches.view(deep, 6, 3, patch_frames, 196).permute(0, 3, 1, 2, 4).flatten(0, 1)
    alone = ImagePlan(SIZE, plan.renders, (0.0,))
    expected = [render_clip([frame], alone, patch=14)[0].view(6, 3, 196) for frame in frames]
    for number, frame in enumerate(found):
        assert torch.equal(frame, expected[min(number, shown - 1)])


def test_frames_that_are_views_of_their_own_are_as_many_as_are_shown() -> None:
    plan = ImagePlan(SIZE, (Render.whole(SIZE),), (0.0,))
    assert plan.grids(14, 1, False, 2) == (Grid(1, 2, 3),)


def test_a_film_of_one_frame_has_the_places_of_that_frame() -> None:
    """Under another ratio for films than for pictures it is encoded twice; under one for both it is not."""
    arch = vlmkit.architecture("videollama3-tiny")
    film = arch.image_tokens(arch.policy.plan_clip(Size(60, 90), (0.0,)))
    assert film.grids == (Grid(2, 2, 3),)
    assert arch.layout.places(film) == 6
    alike = arch.replace(connector=arch.connector.replace(ratio=2))
    assert alike.image_tokens(alike.policy.plan_clip(Size(60, 90), (0.0,))).grids == (Grid(1, 2, 3),)
