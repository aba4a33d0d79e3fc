"""Laws of every registered image policy."""

import math
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmkit.preprocess import ImagePlan, ImageSizeError, Size, policies
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.spec import SpecError

byte = st.integers(0, 255)
squares = st.integers(1, 800).flatmap(lambda size: st.fixed_dictionaries({"size": st.just(size)}, optional={"view": st.integers(1, size)}))
colours = st.tuples(byte, byte, byte)
few = st.integers(1, 5)


def square(**optional: st.SearchStrategy) -> st.SearchStrategy:
    """Fields of a policy that makes squares."""
    return st.tuples(squares, st.fixed_dictionaries({}, optional=optional)).map(lambda both: both[0] | both[1])


FIELDS = {
    "anyres": square(grids=st.lists(st.tuples(few, few), min_size=1, max_size=9).map(tuple), fill=colours),
    "canvas_tiles": square(tiles=few, fill=colours),
    "center_crop": square(max_aspect_ratio=st.none() | st.integers(1, 300)),
    "edge_bounds": st.integers(1, 40).flatmap(
        lambda factor: st.fixed_dictionaries(
            {"factor": st.just(factor), "shortest": st.integers(factor, 400), "longest": st.integers(400, 1000), "quarters": st.booleans()}
        )
    ),
    "edge_cap": st.fixed_dictionaries({}, optional={"longest": st.integers(1, 1600), "factor": st.integers(1, 64)}),
    "edge_fit": st.fixed_dictionaries(
        {"factor": st.integers(1, 40), "longest": st.integers(40, 1000), "shortest": st.integers(1, 40)},
        optional={"grids": st.lists(st.tuples(few, few), max_size=9).map(tuple), "fill": colours},
    )
    | st.tuples(st.integers(1, 40), st.integers(1, 20), st.lists(st.tuples(few, few), max_size=9).map(tuple)).map(
        lambda drawn: {"factor": drawn[0], "longest": 2 * drawn[0] * drawn[1], "shortest": 1, "grids": drawn[2], "halves": True}
    ),
    "fit_canvas": st.fixed_dictionaries(
        {}, optional={"height": st.integers(1, 1600), "width": st.integers(1, 1600), "factor": st.integers(1, 64), "fill": colours}
    ),
    "letterbox": square(min_side=st.just(1), fill=colours),
    "longest_edge_tiles": square(tiles=few, split=st.booleans()) | square(longest=st.integers(1, 2000), split=st.booleans()),
    "multicrop": st.integers(1, 800).flatmap(
        lambda size: st.fixed_dictionaries(
            {"size": st.just(size), "margin": st.integers(0, (size - 1) // 2)}, optional={"crops": st.integers(1, 12), "fill": colours}
        )
    ),
    "pad_square": square(fill=st.just("mean") | colours),
    "resize_crop": st.fixed_dictionaries(
        {"factor": st.integers(1, 40)},
        optional={
            "resize": st.none() | st.integers(1, 400) | st.tuples(st.integers(1, 400), st.integers(1, 400)),
            "crop": st.none() | st.tuples(st.integers(40, 400), st.integers(40, 400)),
        },
    ),
    "smart_resize": st.fixed_dictionaries(
        {}, optional={"factor": st.integers(1, 64), "min_pixels": st.integers(1, 50_000), "max_aspect_ratio": st.integers(1, 300)}
    ),
    "squash": square(),
    "tiles": square(least=few, most=st.integers(5, 12), thumbnail=st.booleans()),
}
"""Drawn fields of every policy; a new policy adds its line here."""
ROOM = {
    "edge_fit": {"longest": 2 * math.lcm(*range(1, 41))},
    "resize_crop": {"crop": None},
    "smart_resize": {"max_pixels": 10**9},
    "edge_bounds": {"shortest": 10**4, "longest": 10**4},
    "multicrop": {"margin": 0},
}
"""Fields that let another field grow."""
REFUSING = {"center_crop", "edge_bounds", "edge_cap", "fit_canvas", "multicrop", "resize_crop", "smart_resize"}
"""Policies that refuse some of the drawn sizes. Which ones, is tested beside each."""
COMMON = {"resample": st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]), "antialias": st.booleans()}

sides = st.integers(1, 4000) | st.integers(1, 100_000)
sizes = st.tuples(sides, sides).map(lambda sides: Size(*sides))


@st.composite
def drawn_policies(draw: st.DrawFn) -> ImagePolicy:
    kind = draw(st.sampled_from(sorted(FIELDS)))
    return policies[kind](**draw(FIELDS[kind]), **draw(st.fixed_dictionaries({}, optional=COMMON)))


def planned(policy: ImagePolicy, size: Size) -> ImagePlan | None:
    """The plan, or None where the policy refuses the size in words that name both."""
    try:
        return policy.plan(size)
    except ImageSizeError as error:
        assert policy.kind in REFUSING
        assert str(error).startswith(policy.kind)
        assert f"an image of {size} (height x width) has " in str(error)
        return None


def test_every_policy_is_walked():
    assert sorted(FIELDS) == policies.names()
    assert len(policies) >= 10


@settings(max_examples=500, deadline=None)
@given(drawn_policies(), sizes)
def test_views_cover_the_canvas_once(policy, size):
    plan = planned(policy, size)
    if plan is None:
        return
    assert plan.source == size
    assert len(plan.views) == sum(len(render.tiles) for render in plan.renders) > 0
    cut_off = getattr(policy, "view", None) is not None or policy.kind in ("edge_bounds", "edge_fit", "resize_crop")
    for render in plan.renders:
        assert all(type(number) is int for number in (render.top, render.left, *render.fill))
        for tile in render.tiles:
            assert all(type(number) is int for number in (tile.top, tile.left, tile.height, tile.width))
            assert 0 <= tile.top < tile.top + tile.height <= render.canvas.height
            assert 0 <= tile.left < tile.left + tile.width <= render.canvas.width
        # Of tiles that overlap each has a part of its own.
        parts = render.kept or render.tiles
        for own, tile in zip(parts, render.tiles, strict=True):
            assert tile.top <= own.top < own.top + own.height <= tile.top + tile.height
            assert tile.left <= own.left < own.left + own.width <= tile.left + tile.width
        covered = sum(own.size.pixels for own in parts)
        assert covered <= render.canvas.pixels if cut_off else covered == render.canvas.pixels
        rows, columns = render.tile_grid
        assert rows * columns == len(render.tiles)
        assert list(render.tiles) == sorted(render.tiles, key=lambda tile: (tile.top, tile.left))
        for index, one in enumerate(parts):
            for other in parts[:index]:
                apart = one.top >= other.top + other.height or one.left >= other.left + other.width
                assert apart or other.left >= one.left + one.width
        # Some of the image is in the frame and on the canvas.
        if render.frame is not None:
            assert -render.frame.height < render.frame.top < size.height
            assert -render.frame.width < render.frame.left < size.width
        assert render.top < render.canvas.height
        assert render.left < render.canvas.width
        assert render.top + render.resize.height > 0
        assert render.left + render.resize.width > 0


@settings(max_examples=500, deadline=None)
@given(drawn_policies(), sizes, st.integers(1, 40))
def test_views_are_multiples_where_there_is_no_problem(policy, size, multiple):
    problems = policy.problems(multiple)
    for problem in problems:
        assert policy.kind in problem
        assert f"multiple of {multiple}, such as " in problem
    plan = planned(policy, size)
    if not problems and plan is not None:
        assert all(view.height % multiple == 0 and view.width % multiple == 0 for view in plan.views)


@settings(max_examples=300, deadline=None)
@given(drawn_policies(), st.integers(2, 40))
def test_the_way_out_of_a_problem_is_a_way_out(policy, multiple):
    for problem in policy.problems(multiple):
        whole, field, number = re.search(r"Use (view=None and )?a (\w+) that is a multiple of \d+, such as (\d+)\.$", problem).groups()
        changes = {field: int(number)} | ROOM.get(policy.kind, {}) | ({"view": None} if whole else {})
        assert policy.replace(**changes).problems(multiple) == []


@settings(max_examples=300, deadline=None)
@given(drawn_policies(), st.integers(2, 40))
def test_the_multiple_that_is_suggested_is_the_nearest_that_fits(policy, multiple):
    for problem in policy.problems(multiple):
        if getattr(policy, "view", None) is not None:
            continue  # a square that is seen in part grows from what it is
        field, number = re.search(r"Use a (\w+) that is a multiple of \d+, such as (\d+)\.$", problem).groups()
        given_, suggested = getattr(policy, field), int(number)
        for other in range(multiple, suggested + given_ + multiple, multiple):
            if abs(other - given_) < abs(suggested - given_):
                with pytest.raises(SpecError):
                    policy.replace(**{field: other})


@settings(max_examples=200, deadline=None)
@given(drawn_policies())
def test_json_reads_back_exactly(policy):
    assert ImagePolicy.from_json(policy.to_json()) == policy
    assert type(policy).from_json(policy.to_json()).to_json() == policy.to_json()


def test_policies_need_only_the_standard_library():
    code = """
import sys
from vlmkit.preprocess import policies, smart_resize, Size
import vlmkit.spec, vlmkit.registry, vlmkit.features, vlmkit.preprocess.geometry
print([policies[kind].__name__ for kind in policies])
print(sorted({"torch", "PIL", "numpy", "transformers", "torchvision"} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    classes = [policies[kind].__name__ for kind in policies]
    assert answer == [str(classes), "[]"]
    assert {"AnyRes", "Squash"} < set(classes)


@pytest.mark.parametrize("name", ["smart-resize", "padsquare", "Squash"])
def test_a_near_miss_is_suggested(name):
    with pytest.raises(LookupError, match=r"unknown policy .* did you mean"):
        policies[name]
