"""What counts as new in a film, beside transformers' video processor of VideoLLaMA 3."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import VideoLlama3VideoProcessor

from vlmkit.features import Grid, GridError
from vlmkit.preprocess.changes import changed, changed_tokens

HALF = (0.5, 0.5, 0.5)
PATCH = 14


def film(frames: int, rows: int, columns: int, seed: int) -> Tensor:
    """(N, 3*p*p) patches of a film in which some patches change much, some by a grey level in some pixels, some not at all."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, rows * columns, 3 * PATCH**2)
    pictures = [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)]
    for _ in range(frames - 1):
        before = pictures[-1]
        new = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        few = torch.rand(shape, generator=generator) < 0.1 * torch.rand((1, rows * columns, 1), generator=generator)
        which = torch.randint(0, 3, (1, rows * columns, 1), generator=generator)
        pictures.append(torch.where(which == 0, before, torch.where(which == 1, before ^ few.to(torch.uint8), new)))
    return torch.cat(pictures).flatten(0, 1)


def published(patches: Tensor, grid: Grid, merge: int) -> list[bool]:
    """By transformers, which wants normalised patches, the merge x merge of a token one behind the other."""
    blocks = patches.view(grid.frames, grid.rows // merge, merge, grid.columns // merge, merge, -1).transpose(2, 3).flatten(0, 4)
    mask = VideoLlama3VideoProcessor()._get_compression_mask(
        (blocks.float() / 255 - 0.5) / 0.5, torch.tensor([[grid.frames, grid.rows, grid.columns]]), torch.tensor([merge])
    )
    found: list[bool] = mask.tolist()
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**16))
def test_it_keeps_what_transformers_keeps(frames: int, rows: int, columns: int, merge: int, seed: int) -> None:
    grid, merged = Grid(frames, rows * merge, columns * merge), Grid(frames, rows, columns)
    patches = film(frames, grid.rows, grid.columns, seed)
    kept = changed(patches, grid, merged, HALF, 0.1)
    assert [bool(value) for value in kept] == published(patches, grid, merge)


def test_both_sides_of_the_threshold_are_drawn() -> None:
    patches = film(4, 6, 6, seed=1)
    kept = [bool(value) for value in changed(patches, Grid(4, 6, 6), Grid(4, 6, 6), HALF, 0.1)]
    assert kept == published(patches, Grid(4, 6, 6), 1)
    before, after = patches.view(4, 36, -1)[:-1].int(), patches.view(4, 36, -1)[1:].int()
    means = (before - after).abs().float().mean(dim=-1)
    assert ((means > 0) & (means <= 0.05)).any()
    assert ((means > 0.05) & (means < 0.2)).any()
    assert 0 < sum(kept) < len(kept)


def test_a_frame_that_repeats_keeps_its_first_token_and_a_first_frame_everything() -> None:
    patches = film(1, 4, 4, seed=2).repeat(3, 1)
    assert list(changed(patches, Grid(3, 4, 4), Grid(3, 2, 2), HALF, 0.1)) == [1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0]
    assert list(changed(patches[:16], Grid(1, 4, 4), Grid(1, 2, 2), HALF, 0.1)) == [1, 1, 1, 1]


def test_the_difference_is_that_of_normalised_pixels() -> None:
    """A grey level everywhere in one colour, whose standard deviation decides."""
    patches = torch.zeros(2, 3, 4, dtype=torch.uint8)
    patches[1, 2] = 1
    for deviation, kept in ((0.5, [1, 1]), (3.0, [1, 1]), (4.0, [1, 0])):
        found = changed(patches.flatten(1).repeat_interleave(2, 0), Grid(2, 1, 2), Grid(2, 1, 2), (0.1, 0.1, deviation), 0.1)
        assert list(found) == [1, 1, kept[0], kept[1]]


def test_tokens_that_are_no_blocks_of_patches_are_refused() -> None:
    patches = film(2, 2, 3, seed=0)
    with pytest.raises(GridError, match="tokens of a 2x1x5 grid do not cover blocks of the 2x2x3 patches"):
        changed(patches, Grid(2, 2, 3), Grid(2, 1, 5), HALF, 0.1)


def test_frames_that_are_views_of_their_own_are_compared_as_those_of_one_view() -> None:
    patches = film(4, 2, 4, seed=3)
    whole = changed_tokens(patches, (Grid(4, 2, 4),), (Grid(4, 1, 2),), 1, HALF, 0.1)
    assert whole == changed(patches, Grid(4, 2, 4), Grid(4, 1, 2), HALF, 0.1)
    assert changed_tokens(patches, (Grid(1, 2, 4),) * 4, (Grid(1, 1, 2),) * 4, 1, HALF, 0.1) == whole


def test_each_view_of_a_frame_is_compared_with_the_same_view_of_the_frame_before() -> None:
    """Two tiles a frame; the first film stands still, the second changes."""
    still, moving = film(1, 2, 2, seed=4).repeat(3, 1), torch.cat([film(1, 2, 2, seed=seed) for seed in (5, 6, 7)])
    tiles = torch.stack([still.view(3, 4, -1), moving.view(3, 4, -1)], dim=1).flatten(0, 2)
    kept = changed_tokens(tiles, (Grid(1, 2, 2),) * 6, (Grid(1, 2, 2),) * 6, 2, HALF, 0.1)
    assert list(kept) == [1, 1, 1, 1] * 2 + [1, 0, 0, 0, 1, 1, 1, 1] * 2
    as_films = changed_tokens(torch.cat([still, moving]), (Grid(3, 2, 2),) * 2, (Grid(3, 2, 2),) * 2, 2, HALF, 0.1)
    assert list(as_films) == [1, 1, 1, 1] + [1, 0, 0, 0] * 2 + [1] * 12
