"""Tiles over the longest edge, beside the processors of Idefics3 and SmolVLM in transformers.

Lanczos is Pillow's: equal to the PIL backend bit for bit. Of transformers' two backends torchvision's clips overshoot between
two passes elsewhere: up to 25 of 255 apart, measured on 1500 x 640 pixels of a photograph, in 0.1 % of the pixels more than 2.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from transformers import Idefics3ImageProcessor, SmolVLMImageProcessor
from transformers.models.idefics3.image_processing_idefics3 import get_resize_output_image_size
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from tests.preprocess.policies.published import difference, geometries, image, processed, seen, shapes, views_of
from vlmkit.preprocess import Size, policies
from vlmkit.spec import SpecError

LongestEdgeTiles = policies["longest_edge_tiles"]
PIL = Idefics3ImageProcessorPil()
IDEFICS3 = Idefics3ImageProcessor()


def views(processor, picture, size, tiles, split, longest=None):
    fields = dict(size={"longest_edge": longest or tiles * size}, max_image_size={"longest_edge": size}, do_image_splitting=split)
    return views_of(processed(processor, picture, **fields)["pixel_values"][0])


@settings(max_examples=50, deadline=None)
@given(shapes, st.booleans(), st.integers(20, 70), st.integers(1, 5), st.booleans())
def test_pixels_are_those_of_idefics3(shape, noise, size, tiles, split):
    picture = image(shape, noise)
    try:
        theirs = views(PIL, picture, size, tiles, split)
    except ValueError as refused:  # Of sides far apart the shorter rounds to 0 there: 49 x 1 pixels, for one.
        assert "size must be a dictionary" in str(refused)
        reject()
    assert difference(seen(LongestEdgeTiles(size=size, tiles=tiles, split=split), picture), theirs) == 0


@settings(max_examples=50, deadline=None)
@given(shapes, st.booleans(), st.integers(20, 70), st.integers(10, 300), st.booleans())
def test_a_longest_edge_need_not_be_whole_tiles(shape, noise, size, longest, split):
    picture = image(shape, noise)
    try:
        theirs = views(PIL, picture, size, 1, split, longest)
    except ValueError as refused:
        assert "size must be a dictionary" in str(refused)
        reject()
    assert difference(seen(LongestEdgeTiles(size=size, longest=longest, split=split), picture), theirs) == 0


@pytest.mark.parametrize("shape", [(480, 640), (1, 1000), (1500, 640)])
@pytest.mark.parametrize(
    ("processor", "size"), [(Idefics3ImageProcessor(), 364), (SmolVLMImageProcessor(), 384), (SmolVLMImageProcessor(), 512)]
)
def test_published_sizes_in_the_torchvision_backend(shape, processor, size):
    picture = image(shape)
    ours = np.stack(seen(LongestEdgeTiles(size=size), picture)).astype(int)
    theirs = np.stack(views(processor, picture, size, tiles=4, split=True)).astype(int)
    assert (np.abs(ours - theirs) > 2).mean() < 0.002


@settings(max_examples=300, deadline=None)
@given(geometries, st.integers(1, 256).map(lambda half: 2 * half), st.integers(1, 8))
def test_sizes_are_those_of_idefics3(shape, size, tiles):
    """Even tiles, as published: the count of patches that transformers' function gives is that of its pixels only there."""
    plan = LongestEdgeTiles(size=size, tiles=tiles).plan(Size(*shape))
    (fitted, *_), last = plan.renders[0].via, plan.renders[-1]
    blank = torch.empty(shape, device="meta")
    assert (fitted.height, fitted.width) == get_resize_output_image_size(blank, tiles * size)
    fields = dict(size={"longest_edge": tiles * size}, max_image_size={"longest_edge": size})
    count, rows, columns = IDEFICS3.get_number_of_image_patches(*shape, fields)
    assert len(plan.views) == max(count, 1)
    assert plan.renders[0].tile_grid == (max(rows, 1), max(columns, 1))
    assert last.tile_grid == (1, 1)


def test_worked_numbers():
    tiles, whole = LongestEdgeTiles(size=364).plan(Size(400, 640)).renders
    assert (tiles.via, tiles.resize, tiles.tile_grid) == ((Size(910, 1456),), Size(1092, 1456), (3, 4))
    assert (whole.via, whole.resize) == ((Size(910, 1456), Size(1092, 1456)), Size(364, 364))
    (alone,) = LongestEdgeTiles(size=364, split=False).plan(Size(400, 640)).renders
    assert (alone.via, alone.resize) == ((Size(910, 1456),), Size(364, 364))


def test_a_part_of_each_tile_is_seen():
    plan = LongestEdgeTiles(size=384, view=378).plan(Size(480, 640))
    assert set(plan.views) == {Size(378, 378)}
    assert LongestEdgeTiles(size=384, view=378).problems(14) == []


def test_no_tile_is_refused():
    with pytest.raises(SpecError, match=r"longest_edge_tiles\.tiles: expected 1 or more, got 0"):
        LongestEdgeTiles(size=364, tiles=0)
