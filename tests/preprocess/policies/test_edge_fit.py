"""A longer side of a given length, beside ARIA's processor in transformers (torchvision backend).

transformers pads views to squares and masks every patch without a pixel of the image; views here end with the last patch that has one.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AriaImageProcessor
from transformers.models.aria.modeling_aria import AriaModel

from tests.preprocess.policies.published import difference, geometries, image, processed, seen, shapes, views_of
from vlmkit.preprocess import Box, Size, policies
from vlmkit.spec import SpecError
from vlmkit.zoo.aria import ARIA_GRIDS, ARIA_SPLIT, ARIA_SPLIT_980

EdgeFit = policies["edge_fit"]
PUBLISHED = AriaImageProcessor()
PATCH = 14


TOWER = SimpleNamespace(vision_tower=SimpleNamespace(config=SimpleNamespace(patch_size=PATCH)))
"""What AriaModel asks its tower when it makes the mask of patches."""


def unmasked(batch):
    """The views up to the last row and the last column of patches that the encoder looks at."""
    patches = AriaModel._create_patch_attention_mask(TOWER, torch.as_tensor(batch["pixel_mask"]))
    found = []
    for view, mask in zip(views_of(batch["pixel_values"]), patches, strict=True):
        rows, columns = int(mask[:, 0].sum()), int(mask[0].sum())
        assert int(mask.sum()) == int(mask[:rows, :columns].sum()) == rows * columns
        found.append(view[: rows * PATCH, : columns * PATCH])
    return found


@settings(max_examples=40, deadline=None)
@given(shapes, st.booleans(), st.sampled_from([490, 980]))
def test_pixels_are_those_of_aria(shape, noise, longest):
    picture = image(shape, noise)
    theirs = unmasked(processed(PUBLISHED, picture, max_image_size=longest))
    assert difference(seen(EdgeFit(longest=longest), picture), theirs) == 0


@settings(max_examples=25, deadline=None)
@given(shapes, st.booleans())
def test_squares_are_those_of_aria(shape, noise):
    picture = image(shape, noise)
    batch = processed(PUBLISHED, picture, max_image_size=490, split_image=True)
    assert batch["pixel_mask"].all()
    assert difference(seen(ARIA_SPLIT, picture), unmasked(batch)) == 0


@settings(max_examples=25, deadline=None)
@given(shapes, st.booleans())
@example((450, 1400), True)  # the last of three squares is enlarged
@example((1400, 450), True)
def test_views_of_up_to_four_squares_are_those_of_aria(shape, noise):
    picture = image(shape, noise)
    batch = processed(PUBLISHED, picture, max_image_size=980, split_image=True)
    assert len(ARIA_SPLIT_980.plan(Size(*shape)).views) == int(batch["num_crops"])
    assert difference(seen(ARIA_SPLIT_980, picture), unmasked(batch)) == 0


@settings(max_examples=300, deadline=None)
@given(geometries, st.sampled_from([ARIA_SPLIT, ARIA_SPLIT_980]))
def test_numbers_of_views_are_those_of_aria(shape, policy):
    views = policy.plan(Size(*shape)).views
    asked = {"split_image": True, "max_image_size": policy.longest}
    assert len(views) == PUBLISHED.get_number_of_image_patches(*shape, asked)
    assert all(max(view.height, view.width) == policy.longest for view in views)


def test_grids_are_those_of_aria():
    assert sorted([rows * 490, columns * 490] for rows, columns in ARIA_GRIDS) == sorted(PUBLISHED.split_resolutions)


def test_worked_numbers():
    (render,) = EdgeFit().plan(Size(480, 640)).renders
    assert (render.resize, render.canvas, render.tiles) == (Size(735, 980), Size(742, 980), (Box(0, 0, 742, 980),))
    assert EdgeFit().plan(Size(2000, 100)).views == (Size(980, 336),)
    assert ARIA_SPLIT.plan(Size(480, 640)).views == (Size(490, 490),) * 2
    assert ARIA_SPLIT_980.plan(Size(480, 640)).views == (Size(490, 980),)
    assert ARIA_SPLIT_980.plan(Size(450, 1400)).views == (Size(490, 980), Size(980, 980))
    assert ARIA_SPLIT_980.plan(Size(1000, 2000)).views == (Size(980, 980),) * 2


def test_what_fills_no_patch_of_the_longer_side_is_cut_off():
    (render,) = EdgeFit(factor=100).plan(Size(480, 640)).renders
    assert (render.resize, render.tiles) == (Size(735, 980), (Box(0, 0, 800, 900),))
    assert EdgeFit(factor=100).plan(Size(640, 640)).views == (Size(900, 900),)
    assert EdgeFit(factor=100, grids=((1, 2),)).plan(Size(480, 640)).views == (Size(900, 900),) * 2


def test_what_is_filled_up_has_the_colour():
    view = seen(EdgeFit(longest=28, shortest=1, fill=(1, 2, 3)), np.full((14, 20, 3), 200, np.uint8))[0]
    assert view.shape == (28, 28, 3)
    assert (view[:19] == 200).all()
    assert (view[19:] == (1, 2, 3)).all()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (dict(shortest=0), "expected 1 <= shortest <= longest and factor <= longest, got 0, 980 and 14"),
        (dict(shortest=981), "expected 1 <= shortest <= longest and factor <= longest, got 981, 980 and 14"),
        (dict(factor=981), "expected 1 <= shortest <= longest and factor <= longest, got 336, 980 and 981"),
        (dict(halves=True, factor=20), "halves: .* a multiple of factor=20 .* got longest=980"),
        (dict(halves=True, shortest=500), "halves: .* no shorter than shortest=500, got longest=980"),
        (dict(grids=((1, 0),)), r"grids: expected grids of 1x1 squares or more, got \(\(1, 0\),\)"),
    ],
)
def test_numbers_that_make_no_views_are_refused(fields, problem):
    with pytest.raises(SpecError, match=problem):
        EdgeFit(**fields)
