"""What is resampled, and by way of which sizes: frames on, in and beside an image, and resizes one after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.preprocess.policies.published import image
from vlmkit.preprocess import Box, ImagePlan, Render, Size, pixels, render

PICTURE = image((40, 60), noise=True)
FILL = (10, 20, 30)


def rendered(picture, *renders: Render):
    plan = ImagePlan(source=Size(*picture.shape[:2]), renders=renders)
    patches, grids = render(picture, plan, patch=1, resample="bicubic")
    ends = np.cumsum([rows * columns for _, rows, columns in grids.tolist()])[:-1]
    return [
        part.reshape(rows, columns, 3) for part, (_, rows, columns) in zip(np.split(patches.numpy(), ends), grids.tolist(), strict=True)
    ]


def whole(size: Size, **fields) -> Render:
    return Render(resize=size, canvas=size, tiles=(Box(0, 0, size.height, size.width),), fill=FILL, **fields)


def framed(picture, frame: Box):
    """The frame cut out of a plane on which there is nothing but the picture."""
    height, width = picture.shape[:2]
    margin = 100
    plane = np.empty((height + 2 * margin, width + 2 * margin, 3), np.uint8)
    plane[:] = FILL
    plane[margin : margin + height, margin : margin + width] = picture
    top, left = frame.top + margin, frame.left + margin
    return plane[top : top + frame.height, left : left + frame.width]


@settings(max_examples=100, deadline=None)
@given(st.integers(-30, 39), st.integers(-30, 59), st.integers(31, 100), st.integers(31, 100), st.integers(1, 50), st.integers(1, 50))
def test_a_frame_is_padded_and_cropped_before_it_is_resampled(top, left, height, width, rows, columns):
    frame, size = Box(top, left, height, width), Size(rows, columns)
    (ours,) = rendered(PICTURE, whole(size, frame=frame))
    (expected,) = rendered(framed(PICTURE, frame), whole(size))
    assert (ours == expected).all()


def test_sizes_on_the_way_are_resampled_one_after_the_other_and_once():
    first, second, last = Size(90, 70), Size(100, 100), Size(20, 30)
    taken = []
    resize = pixels._resize

    def counted(picture, size, *rest):
        taken.append(size)
        return resize(picture, size, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "_resize", counted)
        tiles, small = rendered(PICTURE, whole(second, via=(first,)), whole(last, via=(first, second)))
    assert taken == [first, second, last]
    (step,) = rendered(PICTURE, whole(first))
    (step,) = rendered(step, whole(second))
    assert (tiles == step).all()
    assert (small == rendered(step, whole(last))[0]).all()


def test_the_same_size_of_another_frame_is_another_picture():
    size = Size(20, 20)
    left, right, every = rendered(
        PICTURE, whole(size, frame=Box(0, 0, 40, 30)), whole(size, frame=Box(0, 30, 40, 30)), whole(size)
    )  # fmt: skip
    assert (left != right).any()
    assert (left != every).any()
