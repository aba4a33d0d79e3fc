"""The middle of an image, beside CLIP's rules in transformers and the processor of published LLaVA-1.5 checkpoints."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import LlavaImageProcessor
from transformers.image_transforms import center_crop, get_resize_output_image_size

from tests.preprocess.policies.published import difference, image, processed, seen, shapes, views_of
from vlmkit.preprocess import ImageSizeError, Size, policies
from vlmkit.preprocess.policies.center_crop import MAX_STRIP

CenterCrop = policies["center_crop"]
LLAVA = LlavaImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})


@settings(max_examples=30, deadline=None)
@given(shapes.filter(lambda shape: max(shape) <= 200 * min(shape)), st.booleans())
def test_pixels_are_those_of_llavas_processor(shape, noise):
    picture = image(shape, noise)
    ours = seen(CenterCrop(size=224), picture)
    assert difference(ours, views_of(processed(LLAVA, picture)["pixel_values"])) == 0


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 500))
def test_the_resize_is_the_one_of_transformers(height, width, size):
    assume(size**2 * max(height, width) <= MAX_STRIP * min(height, width))
    (render,) = CenterCrop(size=size).plan(Size(height, width)).renders
    image = np.broadcast_to(np.uint8(0), (height, width, 3))  # a view of one byte: only its shape is read
    published = get_resize_output_image_size(image, size, default_to_square=False, input_data_format="channels_last")
    assert (render.resize.height, render.resize.width) == published


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20))
def test_the_cut_is_the_one_of_transformers(height, width, size):
    (render,) = CenterCrop(size=size).plan(Size(height, width)).renders
    numbered = np.arange(render.resize.pixels).reshape(1, render.resize.height, render.resize.width)
    seen = numbered[:, -render.top : -render.top + size, -render.left : -render.left + size]
    np.testing.assert_array_equal(
        seen, center_crop(numbered, (size, size), data_format="channels_first", input_data_format="channels_first")
    )


def test_a_landscape_photo_loses_both_ends():
    (render,) = CenterCrop(size=336).plan(Size(480, 640)).renders
    assert (render.resize, render.top, render.left, render.canvas) == (Size(336, 448), 0, -56, Size(336, 336))


def test_a_thin_image_is_refused_with_both_numbers():
    with pytest.raises(ImageSizeError, match=r"up to 200, but an image of 1x100000 .* has 100000"):
        CenterCrop(size=336, max_aspect_ratio=200).plan(Size(1, 100_000))
    with pytest.raises(ImageSizeError, match=r"to 134217728 pixels at most before it cuts, but an image of 1x100000 .* has 11289600000"):
        CenterCrop(size=336).plan(Size(1, 100_000))
