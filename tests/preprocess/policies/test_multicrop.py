"""Molmo's overlapping crops beside what upstream counted, and what its preprocessing shows."""

from __future__ import annotations

import pytest

from tests.molmo_upstream import golden
from vlmkit.pointing.through import to_picture, to_view, views_showing
from vlmkit.pointing.values import Point
from vlmkit.preprocess import ImageSizeError, Size
from vlmkit.preprocess.policies.multicrop import MultiCrop
from vlmkit.spec import SpecError

POLICY = MultiCrop()
SIZES = golden("sizes")


def test_the_grid_of_crops_is_upstreams_for_two_thousand_sizes() -> None:
    assert len(SIZES["sizes"]) == 2000
    for height, width, rows, columns, *_ in SIZES["sizes"]:
        assert POLICY.tiling(Size(height, width)) == (rows, columns), (height, width)


def test_pictures_have_upstreams_sizes() -> None:
    assert len({POLICY.tiling(Size(height, width)) for height, width, *_ in SIZES["order"]}) == 35
    for height, width, *sides, _, _ in SIZES["order"]:
        whole, crops = (render.resize for render in POLICY.plan(Size(height, width)).renders)
        assert [crops.height, crops.width, whole.height, whole.width] == sides


def test_a_photo_is_cut_into_two_rows_of_three_crops_that_overlap() -> None:
    whole, crops = POLICY.plan(Size(480, 640)).renders
    assert (whole.resize, whole.canvas, whole.top, whole.left) == (Size(251, 336), Size(336, 336), 42, 0)
    assert (crops.resize, crops.canvas, crops.top, crops.left) == (Size(560, 746), Size(560, 784), 0, 19)
    assert [(tile.top, tile.left) for tile in crops.tiles] == [(top, left) for top in (0, 224) for left in (0, 224, 448)]
    assert {tile.size for tile in crops.tiles} == {Size(336, 336)}
    assert [own.width for own in crops.kept] == [280, 224, 280] * 2
    assert [own.height for own in crops.kept] == [280] * 6


@pytest.mark.parametrize("size", [Size(480, 640), Size(1000, 200), Size(37, 90), Size(2000, 3000)])
def test_a_point_survives_every_crop_that_shows_it(size: Size) -> None:
    plan = POLICY.plan(size)
    point = Point(size.width * 0.377, size.height * 0.613, "here")
    showing = views_showing(point, plan)
    assert 0 in showing
    assert len(showing) >= 2
    for view in showing:
        back = to_picture(to_view(point, plan, view), plan, view)
        assert (back.x, back.y) == pytest.approx((point.x, point.y))
    crops = plan.renders[1]
    x, y = crops.from_image(point.x, point.y, size)
    own = [number for number, box in enumerate(crops.kept) if 0 <= y - box.top < box.height and 0 <= x - box.left < box.width]
    assert len(own) == 1
    assert own[0] + 1 in showing


def test_an_image_of_which_nothing_would_be_left_is_refused() -> None:
    with pytest.raises(ImageSizeError, match="multicrop keeps the aspect ratio, but an image of 1x400"):
        POLICY.plan(Size(1, 400))


def test_a_margin_leaves_something_between() -> None:
    with pytest.raises(SpecError, match=r"multicrop.margin: expected 0 or more pixels, and less than half of the 336 \(size\), got 168"):
        MultiCrop(margin=168)
