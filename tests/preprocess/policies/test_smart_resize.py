"""Smart resize beside transformers' function, and the laws that UNIVA's card states."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as published

from vlmkit.preprocess import ImageSizeError, Size, policies, smart_resize
from vlmkit.spec import SpecError

SmartResize = policies["smart_resize"]

# Halves of the factor are where rounding decides, hence the multiples of 14.
sides = st.integers(1, 5000) | st.integers(1, 200_000) | st.integers(1, 500).map(lambda n: 14 * n)
factors = st.sampled_from([14, 16, 28, 32]) | st.integers(1, 120)
bounds = st.integers(1, 10_000_000) | st.integers(1, 1000).map(lambda n: 784 * n)


@st.composite
def served_sizes(draw: st.DrawFn) -> tuple[int, int]:
    """(height, width) with an aspect ratio up to 200, thin ones included: sides from 1 to 100,000 pixels."""
    short = int(2 ** (draw(st.integers(0, 900)) / 100))
    long = draw(st.integers(short, 200 * short))
    return (short, long) if draw(st.booleans()) else (long, short)


def outcome(rule, *arguments):
    try:
        return rule(*arguments)
    except ValueError:
        return "refused"


@settings(max_examples=2000, deadline=None)
@given(sides, sides, factors, bounds, bounds)
@example(1, 200, 28, 64 * 784, 256 * 784)
@example(1, 201, 28, 64 * 784, 256 * 784)
@example(14, 42, 28, 1, 256 * 784)  # halves: 14 goes to 0, 42 to 56
@example(1000, 1000, 28, 64 * 784, 256 * 784)
@example(28, 5600, 28, 64 * 784, 100 * 784)
def test_the_answer_is_the_one_of_transformers(height, width, factor, min_pixels, max_pixels):
    arguments = (height, width, factor, min_pixels, max_pixels)
    assert outcome(smart_resize, *arguments) == outcome(published, *arguments)


@settings(max_examples=2000, deadline=None)
@given(served_sizes())
def test_univas_images_are_aligned_to_28_and_cost_64_to_256_tokens(size):
    height, width = smart_resize(*size)
    assert (height, width) == published(*size, factor=28, min_pixels=64 * 28 * 28, max_pixels=256 * 28 * 28)
    assert height % 28 == 0
    assert width % 28 == 0
    assert 64 * 28 * 28 <= height * width <= 256 * 28 * 28
    (grid,) = SmartResize().plan(Size(*size)).grids(patch=14)
    assert 64 <= grid.divide(2).tokens <= 256


def test_every_small_size_costs_64_to_256_tokens_and_both_are_reached():
    counts = set()
    for height in range(1, 460, 3):
        for width in range(height, min(200 * height, 900) + 1):
            rows, columns = (side // 28 for side in smart_resize(height, width))
            counts.add(rows * columns)
    assert min(counts) == 64
    assert max(counts) == 256


@settings(max_examples=1000, deadline=None)
@given(served_sizes(), st.integers(1, 64), st.integers(1, 4000), st.integers(4, 100))
def test_bounds_hold_wherever_they_lie_far_enough_apart(size, factor, lower, times):
    """In squares of the factor: rounding up adds at most the sum of the sides and 1, rounding down leaves a quarter."""
    thinnest = 200 * lower
    upper = max(times * lower, 200, lower + int(thinnest**0.5 * 1.005) + 2)
    height, width = smart_resize(*size, factor, lower * factor**2, upper * factor**2)
    assert lower <= height * width // factor**2 <= upper


def test_close_bounds_are_missed_as_transformers_misses_them():
    close = dict(factor=28, min_pixels=100 * 784, max_pixels=101 * 784)
    missed = [
        side
        for side in range(300, 900)
        if not close["min_pixels"] <= smart_resize(side, 300, **close)[0] * smart_resize(side, 300, **close)[1] <= close["max_pixels"]
    ]
    assert missed
    assert smart_resize(28, 5600, 28, 64 * 784, 100 * 784) == (28, 141 * 28) == published(28, 5600, 28, 64 * 784, 100 * 784)


@pytest.mark.parametrize(
    ("size", "resized", "tokens"),
    [
        ((378, 378), (392, 392), 196),
        ((448, 448), (448, 448), 256),
        ((480, 640), (364, 504), 234),
        ((1, 1), (224, 224), 64),
        ((1, 200), (28, 3192), 114),
        ((200, 1), (3192, 28), 114),
        ((4000, 4000), (448, 448), 256),
    ],
)
def test_worked_sizes(size, resized, tokens):
    assert smart_resize(*size) == resized
    assert resized[0] * resized[1] // 784 == tokens


@pytest.mark.parametrize("size", [(10, 2001), (2001, 10)])
def test_a_thin_image_is_refused_with_both_numbers(size):
    with pytest.raises(ImageSizeError, match=r"up to 200, but an image of \d+x\d+ .* has 200\.1"):
        smart_resize(*size)
    with pytest.raises(ImageSizeError, match=r"up to 3\b.*has 4"):
        SmartResize(max_aspect_ratio=3).plan(Size(100, 400))


@pytest.mark.parametrize("size", [(0, 10), (10, -1), (10, 2.0), (True, 10)])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ImageSizeError, match="whole number of pixels from 1 up"):
        smart_resize(*size)


def test_a_wider_limit_is_kept_too():
    assert SmartResize(max_aspect_ratio=1000).plan(Size(1, 1000)).views[0].height == 28


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(factor=0), "factor: expected 1 or more, got 0"),
        (dict(min_pixels=0), "got 0 and"),
        (dict(min_pixels=1000, max_pixels=999), "got 1000 and 999"),
        (dict(min_pixels=1, max_pixels=783), r"783 pixels do not hold one square of 28 \(784 pixels\)"),
        (dict(max_aspect_ratio=0), "max_aspect_ratio: expected 1 or more, got 0"),
    ],
)
def test_nonsense_is_refused_when_it_is_written(fields, message):
    with pytest.raises(SpecError, match=message):
        SmartResize(**fields)


def test_a_factor_that_does_not_fit_patch_and_merge_is_a_problem_with_a_way_out():
    assert SmartResize().problems(28) == []
    assert SmartResize().problems(14) == []
    (problem,) = SmartResize().problems(32)
    assert "smart_resize(factor=28)" in problem
    assert "multiple of 32, such as 32." in problem
    assert SmartResize(factor=32).problems(32) == []
