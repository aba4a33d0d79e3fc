"""Points and boxes on a picture: crosses in rings, frames, and their labels, beside which every pixel stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from vlmkit.page import Colour, text_width, write_text
from vlmkit.pointing.values import Box, Item
from vlmkit.preprocess.geometry import Size

MARK: Colour = (207, 34, 46)
EDGE: Colour = (255, 255, 255)
"""Around a mark, so that it is seen on any ground."""
RADIUS = 8
"""Of a ring, in pixels of what is drawn."""
TYPE = 15


def marked(picture: Image.Image, items: Sequence[Item], source: Size) -> Image.Image:
    """A copy of a picture of any size with what is said of the original, in pixels of its `source`, drawn on it."""
    drawn = picture.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    across, down = drawn.width / source.width, drawn.height / source.height
    for item in items:
        if isinstance(item, Box):
            corners = item.left * across, item.top * down, item.right * across, item.bottom * down
            _frame(pen, *corners)
        else:
            # The middle of the pixel in which the point stands.
            x, y = item.x * across - 0.5, item.y * down - 0.5
            _ring(pen, x, y)
            corners = x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS
        if item.label:
            _label(pen, item.label, corners, drawn.size)
    return drawn


def _frame(pen: ImageDraw.ImageDraw, left: float, top: float, right: float, bottom: float) -> None:
    # A box ends before the pixel of its right and lower edges; a flat one keeps a line.
    edges = left, top, max(left, right - 1), max(top, bottom - 1)
    pen.rectangle((edges[0] - 1, edges[1] - 1, edges[2] + 1, edges[3] + 1), outline=EDGE, width=4)
    pen.rectangle(edges, outline=MARK, width=2)


def _ring(pen: ImageDraw.ImageDraw, x: float, y: float) -> None:
    for colour, grown, width in ((EDGE, 1, 4), (MARK, 0, 2)):
        radius = RADIUS + grown
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=width)
    pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=MARK, outline=EDGE)


def _label(pen: ImageDraw.ImageDraw, label: str, corners: tuple[float, float, float, float], room: tuple[int, int]) -> None:
    """Above the item, or below it where there is no room, moved into the picture."""
    left, top, _, bottom = corners
    width, height = min(text_width(label, TYPE) + 8, room[0]), TYPE + 6
    x = max(0, min(round(left), room[0] - width))
    above = round(top) - height - 3
    y = max(0, above if above >= 0 else min(round(bottom) + 3, room[1] - height))
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=MARK)
    write_text(pen, x + 4, y + 2, label, TYPE, EDGE, width - 8)
