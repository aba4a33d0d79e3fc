"""Places in the picture and in what a model sees of it, through the plan by which it was resized, padded, cropped and cut.

    picture  --frame, resize-->  canvas  --tile-->  view

Each step moves and stretches along both axes, so it has an inverse, and nothing is rounded: there and back is the same place, to the last
digits of a float. A place that a view does not show stands outside of it, at negative pixels or beyond its sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from vlmkit.pointing.values import Box, Point, PointingError
from vlmkit.preprocess.geometry import Box as Tile
from vlmkit.preprocess.geometry import ImagePlan, Render

AnyItem = TypeVar("AnyItem", Point, Box)
_Move = Callable[[float, float], tuple[float, float]]


def to_view(item: AnyItem, plan: ImagePlan, view: int = 0) -> AnyItem:
    """Pixels of the picture -> pixels of a view, which are numbered as in `plan.views`. Raises PointingError where there is no such."""
    render, tile, times = _place(plan, view)

    def move(x: float, y: float) -> tuple[float, float]:
        x, y = render.from_image(x, y, plan.source)
        return (x - tile.left) * times, (y - tile.top) * times

    return _moved(item, move)


def to_picture(item: AnyItem, plan: ImagePlan, view: int = 0) -> AnyItem:
    """Pixels of a view -> pixels of the picture: the inverse."""
    render, tile, times = _place(plan, view)

    def move(x: float, y: float) -> tuple[float, float]:
        return render.to_image(x / times + tile.left, y / times + tile.top, plan.source)

    return _moved(item, move)


def views_showing(point: Point, plan: ImagePlan) -> tuple[int, ...]:
    """Numbers of the views in which a point of the picture stands, edges included; none where it was cropped away."""
    found = []
    for view, size in enumerate(plan.views):
        seen = to_view(point, plan, view)
        if 0 <= seen.x <= size.width and 0 <= seen.y <= size.height:
            found.append(view)
    return tuple(found)


def _place(plan: ImagePlan, view: int) -> tuple[Render, Tile, int]:
    """The render that a view is cut from, its tile, and how many times that is enlarged."""
    count = len(plan.views)
    if not 0 <= view < count:
        raise PointingError(f"the plan has {count} view(s), numbered from 0, got {view}")
    places = [(render, tile, size) for render in plan.renders for tile, size in zip(render.tiles, render.views, strict=True)]
    render, tile, size = places[view]
    return render, tile, size.width // tile.width


def _moved(item: AnyItem, move: _Move) -> AnyItem:
    if isinstance(item, Point):
        x, y = move(item.x, item.y)
        return replace(item, x=x, y=y)
    (left, top), (right, bottom) = move(item.left, item.top), move(item.right, item.bottom)
    return replace(item, left=left, top=top, right=right, bottom=bottom)
