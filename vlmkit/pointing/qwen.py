"""Qwen-VL's boxes (Bai et al. 2023, arXiv:2308.12966): whole thousandths of the picture's width and height, x before y.

<ref>two cups</ref><box>(100,200),(300,400)</box><box>(500,200),(700,400)</box>: boxes that follow each other without a space share a
reference. Four corners of a <quad> are left alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from vlmkit.pointing.numbers import brief, check_label, read_place, write_place, wrong_kind
from vlmkit.pointing.values import Box, Item, PointingError
from vlmkit.preprocess.geometry import Size

_GROUP = re.compile(r"(?:<ref>([^<]*)</ref>\s*)?((?:<box>[^<]*</box>)+)")
_BOX = re.compile(r"<box>([^<]*)</box>")
_CORNERS = re.compile(r"\s*\(\s*(-?\d{1,9})\s*,\s*(-?\d{1,9})\s*\)\s*,\s*\(\s*(-?\d{1,9})\s*,\s*(-?\d{1,9})\s*\)\s*", re.ASCII)


def parse(text: str, size: Size) -> list[Box]:
    return [_box(box, (group[1] or "").strip(), size) for group in _GROUP.finditer(text) for box in _BOX.finditer(group[2])]


def write(items: Sequence[Item], size: Size) -> str:
    """Neighbours of one label share a reference; a space stands between those of two labels."""
    for item in items:
        if not isinstance(item, Box) or item.mask:
            raise wrong_kind("qwen", "boxes without masks", item)
        check_label(item.label, "<>")
    boxes = [(item.label, _written(item, size)) for item in items if isinstance(item, Box)]
    groups = []
    for label, group in itertools.groupby(boxes, key=lambda labelled: labelled[0]):
        reference = f"<ref>{label}</ref>" if label else ""
        groups.append(reference + "".join(words for _, words in group))
    return " ".join(groups)


def _box(found: re.Match[str], label: str, size: Size) -> Box:
    corners = _CORNERS.fullmatch(found[1])
    if corners is None:
        raise PointingError(f"{brief(found[0])} is no box, expected whole numbers as in <box>(100,200),(300,400)</box>")
    left, top, right, bottom = (int(number) for number in corners.groups())
    upper, lower = (read_place(x, y, "thousandths", size, found[0]) for x, y in ((left, top), (right, bottom)))
    if left > right or top > bottom:
        raise PointingError(f"{brief(found[0])} ends before it begins, expected the upper left corner and then the lower right one")
    return Box(*upper, *lower, label)


def _written(box: Box, size: Size) -> str:
    left, top = write_place(box.left, box.top, "thousandths", size)
    right, bottom = write_place(box.right, box.bottom, "thousandths", size)
    return f"<box>({left:.0f},{top:.0f}),({right:.0f},{bottom:.0f})</box>"
