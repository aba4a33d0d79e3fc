"""One resize and one cut, beside the processor of CLIP in transformers with either of them left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import CLIPImageProcessor

from tests.preprocess.policies.published import difference, image, processed, seen, views_of
from vlmkit.preprocess import ImageSizeError, Size, policies
from vlmkit.spec import SpecError

ResizeCrop = policies["resize_crop"]
side = st.integers(1, 90)
sides = st.tuples(side, side)


def published(resize: Any, crop: Any) -> CLIPImageProcessor:
    fields: dict[str, Any] = {"do_resize": resize is not None, "do_center_crop": crop is not None}
    if resize is not None:
        fields["size"] = {"shortest_edge": resize} if isinstance(resize, int) else {"height": resize[0], "width": resize[1]}
    if crop is not None:
        fields["crop_size"] = {"height": crop[0], "width": crop[1]}
    return CLIPImageProcessor(**fields)


@settings(max_examples=150, deadline=None)
@given(sides, st.none() | side | sides, st.none() | sides)
def test_pixels_are_those_of_clips_processor(shape, resize, crop):
    picture = image(shape)
    ours = seen(ResizeCrop(factor=1, resize=resize, crop=crop), picture)
    try:
        theirs = processed(published(resize, crop), picture)
    except RuntimeError as error:
        # torch 2.14 fails at some pictures of 1 or 2 pixels a side, and asks for a report.
        assume("INTERNAL ASSERT FAILED" not in str(error))
        raise
    assert difference(ours, views_of(theirs["pixel_values"])) == 0


def test_what_fills_no_patch_is_not_seen():
    plan = ResizeCrop(factor=14, resize=30).plan(Size(30, 45))
    assert plan.views == (Size(28, 42),)
    assert plan.renders[0].canvas == Size(30, 45)


def test_an_image_without_a_whole_patch_is_refused_with_both_numbers():
    with pytest.raises(ImageSizeError, match=r"whole squares of 14 pixels .* an image of 13x400 .* has 13x400 after resizing"):
        ResizeCrop(factor=14).plan(Size(13, 400))


@pytest.mark.parametrize("fields", [{"resize": 0}, {"resize": (3, 0)}, {"crop": (14, 13)}])
def test_sides_that_hold_nothing_are_refused(fields):
    with pytest.raises(SpecError, match=next(iter(fields))):
        ResizeCrop(factor=14, **fields)
