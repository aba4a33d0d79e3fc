"""Scores of places in a picture: how far two boxes overlap, and whether a point lies where it should."""

from __future__ import annotations

from collections.abc import Sequence

from vlmkit.pointing.values import Box, Point


def box_iou(first: Box, second: Box) -> float:
    """Area that both cover over area that one covers (Jaccard index). 0.0 where neither has an area.

    Edges are lines at pixel coordinates, so a box from 0 to 10 is 10 wide. PASCAL VOC's evaluation counts pixels from edge to edge and
    has 11; do not compare small boxes across the two.

    >>> box_iou(Box(0, 0, 2, 2), Box(1, 0, 3, 2)) == 1 / 3
    True
    """
    width = min(first.right, second.right) - max(first.left, second.left)
    height = min(first.bottom, second.bottom) - max(first.top, second.top)
    common = max(0.0, width) * max(0.0, height)
    covered = _area(first) + _area(second) - common
    return common / covered if covered > 0 else 0.0


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)


def pointing_accuracy(points: Sequence[Point | None], targets: Sequence[Box]) -> float:
    """Share of points that lie in their target, edges included; None, where a model named no point, lies nowhere.

    Of ScreenSpot (Cheng et al. 2024, arXiv:2401.10935) and its like. Disputed: some count the centre of a box that a model drew instead;
    make it a point first. 0.0 for no targets at all. Raises ValueError where there is not one point, or None, for every target.

    >>> pointing_accuracy([Point(1, 1), Point(5, 5), None], [Box(0, 0, 2, 2)] * 3) == 1 / 3
    True
    """
    if len(points) != len(targets):
        raise ValueError(f"{len(points)} points for {len(targets)} targets; give None where there is no point")
    return sum(point is not None and _inside(point, box) for point, box in zip(points, targets, strict=True)) / max(1, len(targets))


def _inside(point: Point, box: Box) -> bool:
    return box.left <= point.x <= box.right and box.top <= point.y <= box.bottom
