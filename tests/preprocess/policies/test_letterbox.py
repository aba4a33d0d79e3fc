"""Resizing, then padding to a square, beside Janus' processor in transformers (torchvision backend)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import JanusImageProcessor

from tests.preprocess.policies.published import difference, image, processed, seen, shapes, views_of
from vlmkit.preprocess import Size, policies
from vlmkit.spec import SpecError

Letterbox = policies["letterbox"]
PUBLISHED = JanusImageProcessor(image_mean=[0.5, 0.5, 0.5])


@settings(max_examples=50, deadline=None)
@given(shapes, st.booleans())
def test_pixels_are_those_of_janus(shape, noise):
    picture = image(shape, noise)
    ours = seen(Letterbox(size=384, min_side=14), picture)
    assert difference(ours, views_of(processed(PUBLISHED, picture)["pixel_values"])) == 0


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 100_000), st.integers(1, 100_000), st.integers(1, 1000), st.data())
def test_the_longer_side_fills_the_view_and_the_shorter_is_centred(height, width, size, data):
    least = data.draw(st.integers(1, size))
    (render,) = Letterbox(size=size, min_side=least).plan(Size(height, width)).renders
    picture = render.resize
    assert max(picture.height, picture.width) == size
    assert min(picture.height, picture.width) >= least
    assert size - picture.height - 2 * render.top in (0, 1)
    assert size - picture.width - 2 * render.left in (0, 1)


def test_worked_numbers():
    (render,) = Letterbox(size=384).plan(Size(480, 640)).renders
    assert (render.resize, render.top, render.left) == (Size(288, 384), 48, 0)
    assert Letterbox(size=384, min_side=14).plan(Size(1, 100_000)).renders[0].resize == Size(14, 384)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(min_side=0), r"letterbox\.min_side: expected 1 to 384 pixels \(size\), got 0"),
        (dict(min_side=385), r"letterbox\.min_side: .* got 385"),
        (dict(fill=(0, 0, 256)), r"letterbox\.fill: expected three values"),
    ],
)
def test_nonsense_is_refused_when_it_is_written(fields, message):
    with pytest.raises(SpecError, match=message):
        Letterbox(size=384, **fields)
