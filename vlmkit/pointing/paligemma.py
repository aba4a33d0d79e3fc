"""PaliGemma's boxes and masks (Beyer et al. 2024, arXiv:2407.07726): tokens of 1,024 locations and of 128 codes.

<loc0102><loc0204><loc0409><loc0511> cup ; <loc...: top, left, bottom, right in 1023rds of the picture's height and width, and what is
there. After `segment`, 16 tokens <seg000> to <seg127> stand behind the four: the codes of a mask, read as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vlmkit.pointing.numbers import brief, check_label, read_place, write_place, wrong_kind
from vlmkit.pointing.values import MASK_CODES, MASK_TOKENS, Box, Item, PointingError
from vlmkit.preprocess.geometry import Size

_LOCATION = r"<loc(\d{4})>"
_CODE = r"<seg(\d{3})>"
_FOUND = re.compile(r"((?:<loc\d{4}>)+) *((?:<seg\d{3}>)*)([^;<\n]*)", re.ASCII)


def parse(text: str, size: Size) -> list[Box]:
    return [_box(found, size) for found in _FOUND.finditer(text)]


def write(items: Sequence[Item], size: Size) -> str:
    return " ; ".join(_written(item, size) for item in items)


def _box(found: re.Match[str], size: Size) -> Box:
    tokens = found[1] + found[2]
    edges = [int(number) for number in re.findall(_LOCATION, found[1], re.ASCII)]
    mask = tuple(int(number) for number in re.findall(_CODE, found[2], re.ASCII))
    if len(edges) != 4:
        raise PointingError(f"{brief(tokens)} has {len(edges)} locations in a row, expected 4: top, left, bottom, right")
    if len(mask) not in (0, MASK_TOKENS):
        raise PointingError(f"{brief(tokens)} has {len(mask)} codes of a mask, expected {MASK_TOKENS} or none")
    if any(code >= MASK_CODES for code in mask):
        raise PointingError(f"{brief(tokens)} says code {max(mask)} of a mask, expected 0 to {MASK_CODES - 1}")
    top, left, bottom, right = edges
    upper, lower = (read_place(x, y, "bins", size, tokens) for x, y in ((left, top), (right, bottom)))
    if left > right or top > bottom:
        raise PointingError(f"{brief(tokens)} ends before it begins, expected top, left, bottom, right")
    return Box(*upper, *lower, found[3].strip(), mask)


def _written(item: Item, size: Size) -> str:
    if not isinstance(item, Box):
        raise wrong_kind("paligemma", "boxes", item)
    check_label(item.label, "<;\n")
    left, top = write_place(item.left, item.top, "bins", size)
    right, bottom = write_place(item.right, item.bottom, "bins", size)
    locations = "".join(f"<loc{edge:04.0f}>" for edge in (top, left, bottom, right))
    codes = "".join(f"<seg{code:03d}>" for code in item.mask)
    return f"{locations}{codes} {item.label}".rstrip()
