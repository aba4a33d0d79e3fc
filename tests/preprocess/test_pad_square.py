from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmkit.preprocess import Size, policies
from vlmkit.spec import SpecError

PadSquare = policies["pad_square"]
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)


@settings(max_examples=1000, deadline=None)
@given(st.integers(1, 6000), st.integers(1, 6000), st.integers(1, 1024))
def test_each_edge_is_the_pixel_nearest_to_where_llava_puts_it(height, width, size):
    (render,) = PadSquare(size=size).plan(Size(height, width)).renders
    long = max(height, width)
    for side, first, length in ((height, render.top, render.resize.height), (width, render.left, render.resize.width)):
        pad = (long - side) // 2  # expand2square: the odd pixel goes behind
        llava_first, llava_last = Fraction(pad * size, long), Fraction((pad + side) * size, long)
        assert abs(first - llava_first) <= Fraction(1, 2)
        assert abs(first + length - llava_last) <= Fraction(1, 2) or length == 1
        assert 0 <= first < first + length <= size


def test_a_landscape_photo_gets_bars_above_and_below():
    (render,) = PadSquare(size=336).plan(Size(480, 640)).renders
    assert (render.resize, render.top, render.left) == (Size(252, 336), 42, 0)


def test_a_square_fills_the_view():
    (render,) = PadSquare(size=336).plan(Size(50, 50)).renders
    assert (render.resize, render.top, render.left) == (Size(336, 336), 0, 0)


def test_a_line_keeps_one_pixel():
    (render,) = PadSquare(size=336).plan(Size(100_000, 1)).renders
    assert render.resize == Size(336, 1)


def test_the_mean_colour_is_llavas():
    assert PadSquare(size=8).plan(Size(1, 2)).renders[0].fill == tuple(int(255 * mean) for mean in CLIP_MEAN)
    assert PadSquare(size=8, fill=(127, 0, 255)).plan(Size(1, 2)).renders[0].fill == (127, 0, 255)


@pytest.mark.parametrize("fill", [(0, 0, 256), (-1, 0, 0), (0, 0), "white", (0.5, 0.5, 0.5)])
def test_what_is_no_colour_is_refused(fill):
    with pytest.raises(SpecError, match=r"pad_square\.fill"):
        PadSquare(size=8, fill=fill)
