"""The best grid of tiles, beside LLaVA-NeXT's processor and functions in transformers (torchvision backend)."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import LlavaNextImageProcessor
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches, unpad_image

from tests.preprocess.policies.published import difference, geometries, image, processed, seen, shapes, views_of
from vlmkit.preprocess import Size, policies
from vlmkit.preprocess.policies.anyres import unpadded
from vlmkit.spec import SpecError

AnyRes = policies["anyres"]
PUBLISHED = LlavaNextImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})

grids = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=30).map(tuple)


@settings(max_examples=40, deadline=None)
@given(shapes, st.booleans())
@example((1, 2000), False)  # rounds down to nothing in every grid: the first of the smallest wins
def test_pixels_are_those_of_llava_next(shape, noise):
    picture = image(shape, noise)
    ours = seen(AnyRes(size=336), picture)
    assert difference(ours, views_of(processed(PUBLISHED, picture)["pixel_values"][0])) == 0


@settings(max_examples=300, deadline=None)
@given(geometries, grids, st.integers(1, 500))
def test_grid_and_resize_are_those_of_llava_next(shape, grids, size):
    plan = AnyRes(size=size, grids=grids).plan(Size(*shape))
    pinpoints = [[rows * size, columns * size] for rows, columns in grids]
    base, tiles = plan.renders
    assert (tiles.canvas.height, tiles.canvas.width) == tuple(select_best_resolution(shape, pinpoints))
    assert tiles.tile_grid == (tiles.canvas.height // size, tiles.canvas.width // size)
    assert len(plan.views) == image_size_to_num_patches(shape, pinpoints, size)
    blank = np.broadcast_to(np.uint8(0), (*shape, 3))
    assert (tiles.resize.height, tiles.resize.width) == get_patch_output_size(
        blank, (tiles.canvas.height, tiles.canvas.width), "channels_last"
    )
    assert base.resize == Size(size, size)


@settings(max_examples=300, deadline=None)
@given(geometries, st.integers(1, 200), st.integers(1, 200))
def test_what_is_left_of_the_joined_tiles_is_what_llava_next_leaves(shape, rows, columns):
    numbered = torch.arange(rows * columns).view(1, rows, columns)
    left = unpad_image(numbered, shape)
    shown_rows, shown_columns = unpadded(Size(*shape), rows, columns)
    assert torch.equal(numbered[:, shown_rows.start : shown_rows.stop, shown_columns.start : shown_columns.stop], left)


def test_worked_numbers():
    base, tiles = AnyRes(size=336).plan(Size(480, 640)).renders
    assert (tiles.resize, tiles.top, tiles.left, tiles.tile_grid) == (Size(504, 672), 84, 0, (2, 2))
    assert len(base.tiles) == 1
    assert unpadded(Size(480, 640), 48, 48) == (range(6, 42), range(48))
    assert unpadded(Size(1, 5000), 24, 72)[0] == range(12, 12)


def test_a_part_of_each_tile_is_seen():
    plan = AnyRes(size=384, view=378).plan(Size(480, 640))
    assert set(plan.views) == {Size(378, 378)}
    assert [tile.left for tile in plan.renders[1].tiles] == [0, 384, 0, 384]


@pytest.mark.parametrize("grids", [(), ((0, 1),), ((2, 2), (1, -1))])
def test_no_grid_is_refused(grids):
    with pytest.raises(SpecError, match=r"anyres\.grids: expected at least one grid"):
        AnyRes(size=336, grids=grids)
