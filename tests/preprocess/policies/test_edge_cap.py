"""A capped longer side and whole patches, beside Pixtral's processor in transformers (torchvision backend)."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import PixtralImageProcessor
from transformers.models.pixtral.image_processing_pixtral import get_resize_output_image_size

from tests.preprocess.policies.published import difference, geometries, image, processed, seen, shapes, views_of
from vlmkit.preprocess import ImageSizeError, Size, policies
from vlmkit.spec import SpecError

EdgeCap = policies["edge_cap"]
PUBLISHED = PixtralImageProcessor()


@settings(max_examples=50, deadline=None)
@given(shapes, st.booleans())
@example((1024, 1), False)
@example((2047, 2), False)
def test_pixels_are_those_of_pixtral(shape, noise):
    picture = image(shape, noise)
    ours = seen(EdgeCap(longest=1024, factor=16), picture)
    assert difference(ours, views_of(processed(PUBLISHED, picture)["pixel_values"])) == 0


@settings(max_examples=400, deadline=None)
@given(geometries, st.sampled_from([1024, 1540]) | st.integers(1, 3000), st.sampled_from([14, 16, 28]) | st.integers(1, 60))
def test_sizes_are_those_of_pixtral(shape, longest, factor):
    blank = np.broadcast_to(np.uint8(0), (*shape, 3))
    published = get_resize_output_image_size(blank, longest, factor, "channels_last")
    if min(published) == 0:  # the processor then fails
        with pytest.raises(ImageSizeError, match=rf"an image of {Size(*shape)} \(height x width\) has .* would be resized to"):
            EdgeCap(longest=longest, factor=factor).plan(Size(*shape))
    else:
        (view,) = EdgeCap(longest=longest, factor=factor).plan(Size(*shape)).views
        assert (view.height, view.width) == published


def test_pixtral_fails_where_an_image_is_too_thin():
    with pytest.raises(ValueError, match="height=0, width=1024"):
        processed(PUBLISHED, image((1, 1025)))
    with pytest.raises(ImageSizeError, match=r"an image of 1x1025 \(height x width\) has 1025 and would be resized to 0x1024"):
        EdgeCap().plan(Size(1, 1025))


def test_worked_numbers():
    assert EdgeCap().plan(Size(480, 640)).views == (Size(480, 640),)
    assert EdgeCap().plan(Size(1000, 3000)).views == (Size(352, 1024),)


def test_no_edge_is_refused():
    with pytest.raises(SpecError, match=r"edge_cap\.longest: expected 1 or more, got 0"):
        EdgeCap(longest=0)
