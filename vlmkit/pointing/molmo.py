"""Molmo's points (Deitke et al. 2024, arXiv:2409.17146): percent of the picture's width and height, with one digit.

One is <point x="12.5" y="80.0" alt="cup">cup</point>, several of one label are <points x1="..." y1="..." x2="..." y2="..." alt="cups">
cups</points>, and none are "There are none." as PixMo's answers have it. Nothing is escaped: a label with quotes or & stands as it is,
`alt` ends at the quote before >, and such words are written and read so.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from vlmkit.pointing.numbers import brief, check_label, read_place, write_place, wrong_kind
from vlmkit.pointing.values import Item, Point, PointingError
from vlmkit.preprocess.geometry import Size

_TAG = re.compile(r"<points?((?:\s+[xy]\d*\s*=\s*\"[^\"<>]*\")+)(?:\s+alt\s*=\s*\"([^<>]*)\")?\s*>(?:(.*?)</points?>)?", re.DOTALL)
_NUMBER = re.compile(r"([xy])(\d*)\s*=\s*\"\s*([^\"]*?)\s*\"")
_DECIMAL = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)


def parse(text: str, size: Size) -> list[Point]:
    """Points in the order in which they are said; a label is what `alt` says, or what the tag holds."""
    return [point for tag in _TAG.finditer(text) for point in _points(tag, size)]


def write(items: Sequence[Item], size: Size) -> str:
    """Neighbours of one label share a tag."""
    for item in items:
        if not isinstance(item, Point):
            raise wrong_kind("molmo", "points", item)
        check_label(item.label, "<>")
    if not items:
        return spelled([], "")
    points = [(item.label, write_place(item.x, item.y, "percent", size, 1)) for item in items if isinstance(item, Point)]
    groups = itertools.groupby(points, key=lambda labelled: labelled[0])
    return " ".join(spelled([place for _, place in group], label) for label, group in groups)


def spelled(points: Sequence[tuple[float, float]], label: str) -> str:
    """Points in percent as Molmo writes them."""
    if not points:
        return "There are none."
    if len(points) == 1:
        ((x, y),) = points
        return f'<point x="{x:.1f}" y="{y:.1f}" alt="{label}">{label}</point>'
    places = " ".join(f'x{number}="{x:.1f}" y{number}="{y:.1f}"' for number, (x, y) in enumerate(points, start=1))
    return f'<points {places} alt="{label}">{label}</points>'


def _points(tag: re.Match[str], size: Size) -> list[Point]:
    label = (tag[2] if tag[2] is not None else tag[3] or "").strip()
    found: dict[str, dict[str, float]] = {}
    for axis, number, value in _NUMBER.findall(tag[1]):
        pair = found.setdefault(number, {})
        if axis in pair:
            raise PointingError(f"{brief(tag[0])} says {axis}{number} twice")
        if not _DECIMAL.fullmatch(value):
            raise PointingError(f"{brief(tag[0])} says {axis}{number}={value!r}, expected a number from 0 to 100")
        pair[axis] = float(value)
    for number, pair in found.items():
        if len(pair) != 2:
            raise PointingError(f"{brief(tag[0])} has x{number} or y{number} alone, expected both")
    return [Point(*read_place(pair["x"], pair["y"], "percent", size, tag[0]), label) for pair in found.values()]
