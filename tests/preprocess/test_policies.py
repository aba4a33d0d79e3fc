"""Laws of every registered image policy."""

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmkit.preprocess import ImageSizeError, Size, policies
from vlmkit.preprocess.base import ImagePolicy

byte = st.integers(0, 255)
FIELDS = {
    "center_crop": st.fixed_dictionaries({"size": st.integers(1, 800)}, optional={"max_aspect_ratio": st.integers(1, 300)}),
    "pad_square": st.fixed_dictionaries(
        {"size": st.integers(1, 800)}, optional={"fill": st.one_of(st.just("mean"), st.tuples(byte, byte, byte))}
    ),
    "smart_resize": st.fixed_dictionaries(
        {}, optional={"factor": st.integers(1, 64), "min_pixels": st.integers(1, 50_000), "max_aspect_ratio": st.integers(1, 300)}
    ),
    "squash": st.fixed_dictionaries({"size": st.integers(1, 800)}),
}
"""Drawn fields of every policy; a new policy adds its line here."""
COMMON = {"resample": st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]), "antialias": st.booleans()}

sides = st.integers(1, 4000) | st.integers(1, 100_000)
sizes = st.tuples(sides, sides).map(lambda sides: Size(*sides))


@st.composite
def drawn_policies(draw: st.DrawFn) -> ImagePolicy:
    kind = draw(st.sampled_from(sorted(FIELDS)))
    return policies[kind](**draw(FIELDS[kind]), **draw(st.fixed_dictionaries({}, optional=COMMON)))


def test_every_policy_is_walked():
    assert sorted(FIELDS) == policies.names()
    assert len(policies) >= 4


@settings(max_examples=500, deadline=None)
@given(drawn_policies(), sizes)
def test_views_cover_the_canvas_once(policy, size):
    if size.aspect_ratio > getattr(policy, "max_aspect_ratio", math.inf):
        with pytest.raises(ImageSizeError, match=f"up to {policy.max_aspect_ratio}, but an image of {size} "):
            policy.plan(size)
        return
    plan = policy.plan(size)
    assert plan.source == size
    assert len(plan.views) == sum(len(render.tiles) for render in plan.renders) > 0
    for render in plan.renders:
        assert all(type(number) is int for number in (render.top, render.left, *render.fill))
        for tile in render.tiles:
            assert all(type(number) is int for number in (tile.top, tile.left, tile.height, tile.width))
            assert 0 <= tile.top < tile.top + tile.height <= render.canvas.height
            assert 0 <= tile.left < tile.left + tile.width <= render.canvas.width
        assert sum(tile.size.pixels for tile in render.tiles) == render.canvas.pixels
        for index, one in enumerate(render.tiles):
            for other in render.tiles[:index]:
                apart = one.top >= other.top + other.height or one.left >= other.left + other.width
                assert apart or other.left >= one.left + one.width
        # Some of the image is on the canvas.
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
    if not problems and size.aspect_ratio <= getattr(policy, "max_aspect_ratio", math.inf):
        assert all(view.height % multiple == 0 and view.width % multiple == 0 for view in policy.plan(size).views)


@settings(max_examples=300, deadline=None)
@given(drawn_policies(), st.integers(2, 40))
def test_the_way_out_of_a_problem_is_a_way_out(policy, multiple):
    for problem in policy.problems(multiple):
        number = int(problem.rstrip(".").rsplit(" ", 1)[1])
        field = "factor" if policy.kind == "smart_resize" else "size"
        room = {"max_pixels": 10**9} if field == "factor" else {}
        assert policy.replace(**{field: number}, **room).problems(multiple) == []


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
    assert answer == ["['CenterCrop', 'PadSquare', 'SmartResize', 'Squash']", "[]"]


@pytest.mark.parametrize("name", ["smart-resize", "padsquare", "Squash"])
def test_a_near_miss_is_suggested(name):
    with pytest.raises(LookupError, match=r"unknown policy .* did you mean"):
        policies[name]
