"""Fitting a canvas and padding to whole patches, beside Fuyu's processor in transformers (torchvision backend)."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import FuyuImageProcessor

from tests.preprocess.policies.published import difference, image, processed, seen, shapes, views_of
from vlmkit.preprocess import ImageSizeError, Size, policies
from vlmkit.spec import SpecError

FitCanvas = policies["fit_canvas"]
PUBLISHED = FuyuImageProcessor()


def views(picture):
    """The part of the padded canvas that Fuyu's processor cuts into patches of 30 pixels."""
    batch = processed(PUBLISHED, picture, nested=True)
    height, width = (math.ceil(int(batch[f"image_unpadded_{name}s"][0][0]) / 30) * 30 for name in ("height", "width"))
    return [view[:height, :width] for view in views_of(batch["images"][0])]


@settings(max_examples=40, deadline=None)
@given(shapes, st.booleans())
@example((1080, 1920), True)
@example((1081, 1920), True)
@example((2000, 1500), False)
def test_pixels_are_those_of_fuyu(shape, noise):
    picture = image(shape, noise)
    ours = seen(FitCanvas(), picture)
    assert difference(ours, views(picture)) == 0


def test_fuyu_fails_where_an_image_is_too_thin():
    with pytest.raises((RuntimeError, ValueError)):
        views(image((1, 1921)))
    with pytest.raises(ImageSizeError, match=r"an image of 1x1921 \(height x width\) has 1921 and would be resized to 0x1920"):
        FitCanvas().plan(Size(1, 1921))


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_the_picture_fits_the_canvas_and_is_padded_by_less_than_a_patch(height, width):
    try:
        (render,) = FitCanvas().plan(Size(height, width)).renders
    except ImageSizeError:
        assert max(height, width) / min(height, width) > 1080
        return
    assert render.resize.height <= 1080
    assert render.resize.width <= 1920
    assert 0 <= render.canvas.height - render.resize.height < 30
    assert 0 <= render.canvas.width - render.resize.width < 30


def test_worked_numbers():
    (render,) = FitCanvas().plan(Size(480, 640)).renders
    assert (render.resize, render.canvas) == (Size(480, 640), Size(480, 660))
    (render,) = FitCanvas().plan(Size(2000, 1500)).renders
    assert (render.resize, render.canvas) == (Size(1080, 810), Size(1080, 810))


@pytest.mark.parametrize("fields", [dict(height=0), dict(width=-1), dict(factor=0)])
def test_no_canvas_is_refused(fields):
    with pytest.raises(SpecError, match="expected 1 or more, got"):
        FitCanvas(**fields)
