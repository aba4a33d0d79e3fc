"""Places through a plan: there and back is the same place, and it is where the pixels went."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vlmkit
from tests.tiny import part
from vlmkit.pointing import Box, Point, PointingError, parse, to_picture, to_view, views_showing, write
from vlmkit.preprocess.geometry import ImagePlan, Size
from vlmkit.preprocess.pixels import render

TINY = vlmkit.architecture("univa-vl-tiny")
POLICIES = {name: {"size": 56} for name in ("center_crop", "letterbox", "pad_square", "squash")} | {
    "resize_crop": {"resize": 64, "crop": (56, 56)}
}
PLANNERS = {name: vlmkit.architecture(name) for name in sorted(vlmkit.list_models("*-tiny"))} | {
    name: replace(TINY, policy=part(vlmkit.policies, name, **settings)) for name, settings in POLICIES.items()
}
PLANNED = {model.policy.kind for model in PLANNERS.values()}

sizes = st.builds(Size, st.integers(30, 900), st.integers(30, 900))
shares = st.floats(-0.5, 1.5)


def test_most_policies_are_walked() -> None:
    assert len(PLANNERS) >= 15
    assert len(PLANNED) >= 10


@pytest.mark.parametrize("name", PLANNERS)
@settings(max_examples=20)
@given(size=sizes, x=shares, y=shares, data=st.data())
def test_there_and_back_is_the_same_place(name: str, size: Size, x: float, y: float, data: st.DataObject) -> None:
    plan = PLANNERS[name].plan(size)
    view = data.draw(st.integers(0, len(plan.views) - 1))
    point = Point(x * size.width, y * size.height, "here")
    seen = to_view(point, plan, view)
    back = to_picture(seen, plan, view)
    assert (back.x, back.y, back.label) == (pytest.approx(point.x, abs=1e-8), pytest.approx(point.y, abs=1e-8), "here")
    box = Box(point.x, point.y, point.x + 10, point.y + 20, "there", (1,) * 16)
    boxed = to_view(box, plan, view)
    assert (boxed.left, boxed.top) == (seen.x, seen.y)
    returned = to_picture(boxed, plan, view)
    assert (returned.right, returned.bottom) == (pytest.approx(box.right, abs=1e-8), pytest.approx(box.bottom, abs=1e-8))
    assert (returned.label, returned.mask) == (box.label, box.mask)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_place_is_where_its_pixels_went(name: str) -> None:
    """A bright spot on black: in every view that shows all of it its middle is where `to_view` says."""
    assert sum(_compared(PLANNERS[name], middle) for middle in (Point(190, 140), Point(110, 80), Point(300.5, 215.5)))


def _compared(model: vlmkit.Architecture, middle: Point) -> int:
    size = Size(300, 420)
    rows, columns = np.mgrid[: size.height, : size.width] + 0.5
    spot = 255 * np.exp(-((columns - middle.x) ** 2 + (rows - middle.y) ** 2) / (2 * 12**2))
    pixels = np.repeat(spot.astype(np.uint8)[:, :, None], 3, axis=2)
    plan, patch = model.plan(size), model.encoder.patch_size
    values, _ = render(pixels, plan, patch=patch, resample=model.policy.resample, antialias=model.policy.antialias)
    ends = np.cumsum([grid.tokens for grid in plan.grids(patch)])[:-1]
    checked = 0
    for view, (grid, part_) in enumerate(zip(plan.grids(patch), np.split(values.numpy(), ends), strict=True)):
        box = to_view(Box(middle.x - 45, middle.y - 45, middle.x + 45, middle.y + 45), plan, view)
        if box.left < 0 or box.top < 0 or box.right > plan.views[view].width or box.bottom > plan.views[view].height:
            continue
        cells = part_.reshape(grid.rows, grid.columns, 3, patch, patch).astype(float)[:, :, 0]
        picture = cells.transpose(0, 2, 1, 3).reshape(grid.rows * patch, grid.columns * patch)
        top, left = max(0, int(box.top)), max(0, int(box.left))
        window = picture[top : int(box.bottom) + 1, left : int(box.right) + 1]
        window = window - window.min()
        ys, xs = np.mgrid[: window.shape[0], : window.shape[1]] + 0.5
        seen = to_view(middle, plan, view)
        found = left + (window * xs).sum() / window.sum(), top + (window * ys).sum() / window.sum()
        assert found == (pytest.approx(seen.x, abs=0.2), pytest.approx(seen.y, abs=0.2))
        assert view in views_showing(middle, plan)
        checked += 1
    return checked


def test_a_point_that_is_cropped_away_is_in_no_view() -> None:
    plan: ImagePlan = part(vlmkit.policies, "center_crop", size=56).plan(Size(100, 300))
    assert views_showing(Point(150, 50), plan) == (0,)
    assert views_showing(Point(10, 50), plan) == ()
    assert to_view(Point(10, 50), plan).x < 0


def test_words_about_a_padded_view_are_places_in_the_picture() -> None:
    plan: ImagePlan = part(vlmkit.policies, "pad_square", size=56).plan(Size(200, 400))
    words = write([to_view(Box(100, 50, 300, 150, "cup"), plan)], "qwen", plan.views[0])
    assert words == "<ref>cup</ref><box>(250,375),(750,625)</box>"
    (said,) = parse(words, "qwen", plan.views[0])
    assert isinstance(said, Box)
    back = to_picture(said, plan)
    assert (back.left, back.top, back.right, back.bottom) == pytest.approx((100, 50, 300, 150))


@pytest.mark.parametrize("view", [-1, 1])
def test_a_view_that_is_not_there_is_refused(view: int) -> None:
    plan: ImagePlan = part(vlmkit.policies, "squash", size=56).plan(Size(100, 300))
    with pytest.raises(PointingError, match=rf"the plan has 1 view\(s\), numbered from 0, got {view}"):
        to_view(Point(1, 2), plan, view)
