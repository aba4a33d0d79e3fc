"""Padding a square before it is resized, beside LLaVA-1.5's processor in transformers (torchvision backend)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlavaImageProcessor

from tests.preprocess.policies.published import difference, image, processed, seen, shapes, views_of
from vlmkit.preprocess import Box, ImageSizeError, Size, pixels, policies
from vlmkit.spec import SpecError

PadSquare = policies["pad_square"]
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
PUBLISHED = LlavaImageProcessor(do_pad=True, size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})


@settings(max_examples=50, deadline=None)
@given(shapes, st.booleans())
def test_pixels_are_llavas(shape, noise):
    picture = image(shape, noise)
    ours = seen(PadSquare(size=336), picture)
    assert difference(ours, views_of(processed(PUBLISHED, picture)["pixel_values"])) == 0


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6000), st.integers(1, 6000))
def test_the_image_stands_in_the_middle_of_the_square(height, width):
    (render,) = PadSquare(size=336).plan(Size(height, width)).renders
    box, long = render.frame, max(height, width)
    assert (box.height, box.width) == (long, long)
    assert long + box.top - height + box.top in (0, 1)  # as much above as below, or one row less
    assert long + box.left - width + box.left in (0, 1)


def test_a_landscape_photo_gets_bars_above_and_below():
    (render,) = PadSquare(size=336).plan(Size(480, 640)).renders
    assert (render.frame, render.resize, render.top, render.left) == (Box(-80, 0, 640, 640), Size(336, 336), 0, 0)


@pytest.mark.parametrize("shape", [(30, 2000), (2000, 30), (1, 2000)])
@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_a_square_that_is_never_made_whole_gives_the_same_view(shape, resample, monkeypatch):
    policy, picture = PadSquare(size=200, resample=resample), image(shape, noise=True)
    whole = seen(policy, picture)
    monkeypatch.setattr(pixels, "MAX_PADDED", 1 << 20)
    assert difference(seen(policy, picture), whole) <= 1  # measured 1: sides are resampled in the other order


@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1)])
def test_a_line_takes_little_memory(shape):
    # As a square it would take 30 GB.
    (view,) = seen(PadSquare(size=336), np.full((*shape, 3), 255, np.uint8))
    assert (np.abs(view.astype(int) - (122, 116, 104)) <= 2).all()


def test_a_longer_side_than_fits_in_memory_is_refused_with_both_numbers():
    assert PadSquare(size=336).plan(Size(1, 399_457))
    with pytest.raises(ImageSizeError, match=r"sides up to 399457 pixels, but an image of 1x399458 .* has 399458"):
        PadSquare(size=336).plan(Size(1, 399_458))


def test_the_mean_colour_is_llavas():
    assert PadSquare(size=8).plan(Size(1, 2)).renders[0].fill == tuple(int(255 * mean) for mean in CLIP_MEAN)
    assert PadSquare(size=8, fill=(127, 0, 255)).plan(Size(1, 2)).renders[0].fill == (127, 0, 255)


@pytest.mark.parametrize("fill", [(0, 0, 256), (-1, 0, 0), (0, 0), "white", (0.5, 0.5, 0.5)])
def test_what_is_no_colour_is_refused(fill):
    with pytest.raises(SpecError, match=r"pad_square\.fill"):
        PadSquare(size=8, fill=fill)
