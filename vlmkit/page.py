"""A page of panels with captions, numbers and a legend; it knows nothing of models."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vlmkit.terminal import printable

Colour = tuple[int, int, int]

INK: Colour = (31, 35, 40)
MUTED: Colour = (101, 109, 118)
RULE: Colour = (208, 215, 222)
FAINT: Colour = (150, 158, 168)
ACCENT: Colour = (9, 105, 218)

WIDTH = 1780
"""Panels beside each other take at most this, unless one alone is wider."""
GAP = 40
"""Between panels."""


@dataclass(frozen=True)
class Panel:
    """A picture under a heading and a caption."""

    heading: str
    caption: str
    picture: Image.Image
    outlined: bool = False


@dataclass(frozen=True)
class Stat:
    """A number and what it is of."""

    label: str
    value: str
    colour: Colour = INK


class Page:
    """Panels set from left to right, in as many rows as they need. Type and margins grow with the largest panel."""

    def __init__(self, panels: Sequence[Panel]) -> None:
        longest = max(max(panel.picture.size) for panel in panels)
        self.unit = max(1.0, min(4.0, longest / 1400))
        self.margin, self.gap = self.px(48), self.px(GAP)
        self.limit = max(round(WIDTH * min(self.unit, 2)), *(panel.picture.width for panel in panels))
        self.rows: list[list[Panel]] = [[]]
        for panel in panels:
            if self.rows[-1] and self._width([*self.rows[-1], panel]) > self.limit:
                self.rows.append([])
            self.rows[-1].append(panel)

    def draw(self, title: str, subtitle: str, stats: Sequence[Stat], legend: Sequence[tuple[int, Colour, str]], footer: str) -> Image.Image:
        """The finished page."""
        inner = max(self.px(860), *(self._width(row) for row in self.rows))
        stat_rows = self._wrap(stats, inner)
        heights = [max(panel.picture.height for panel in row) for row in self.rows]
        head, caption, stat, foot = self.px(104), self.px(72), self.px(88), self.px(84)
        height = 2 * self.margin + head + sum(heights) + len(heights) * (caption + self.px(28)) + len(stat_rows) * stat + foot
        page = Image.new("RGB", (inner + 2 * self.margin, height), "white")
        pen = ImageDraw.Draw(page)
        left, top = self.margin, self.margin
        self._text(pen, left, top, title, 38, INK, inner, bold=True)
        self._text(pen, left, top + self.px(50), f"sees {subtitle}", 22, MUTED, inner)
        top += head
        for row, tallest in zip(self.rows, heights, strict=True):
            self._draw_row(page, pen, row, top, inner)
            top += caption + tallest + self.px(28)
        top = self._draw_legend(pen, legend, top, inner) + self.px(20)
        for stat_row in stat_rows:
            self._draw_stats(pen, stat_row, top)
            top += stat
        self._text(pen, left, top, footer, 17, MUTED, inner)
        return page.crop((0, 0, page.width, top + self.px(24) + self.margin))

    def px(self, units: float) -> int:
        return round(units * self.unit)

    def _width(self, row: Sequence[Panel]) -> int:
        return sum(self._panel_width(panel) for panel in row) + self.gap * (len(row) - 1)

    def _panel_width(self, panel: Panel) -> int:
        words = max(self._length(panel.heading, 22, bold=True), self._length(panel.caption, 18))
        return max(panel.picture.width, min(words, self.px(WIDTH - 2 * 48)))

    def _draw_row(self, page: Image.Image, pen: ImageDraw.ImageDraw, row: Sequence[Panel], top: int, inner: int) -> None:
        left = self.margin
        for panel in row:
            width = self._panel_width(panel)
            self._text(pen, left, top, panel.heading, 22, INK, width, bold=True)
            self._text(pen, left, top + self.px(32), panel.caption, 18, MUTED, max(width, inner if len(row) == 1 else 0))
            place = top + self.px(72)
            page.paste(panel.picture, (left, place))
            if panel.outlined:
                pen.rectangle((left - 1, place - 1, left + panel.picture.width, place + panel.picture.height), outline=RULE)
            left += width + self.gap

    def _draw_legend(self, pen: ImageDraw.ImageDraw, legend: Sequence[tuple[int, Colour, str]], top: int, inner: int) -> int:
        left = self.margin
        for width, colour, words in legend:
            length = self._length(words, 18) + (self.px(52) if width else 0)
            if left > self.margin and left + length > self.margin + inner:
                left, top = self.margin, top + self.px(28)
            if width:
                middle = top + self.px(10)
                pen.rectangle((left, middle - width // 2, left + self.px(40), middle - width // 2 + width - 1), fill=colour)
            self._text(pen, left + (self.px(52) if width else 0), top, words, 18, MUTED, inner)
            left += length + self.px(36)
        return top + self.px(28)

    def _wrap(self, stats: Sequence[Stat], inner: int) -> list[list[Stat]]:
        """As few rows as fit, about equally long."""
        widths = [self._stat_width(stat) for stat in stats]
        limit = inner + self.px(44)
        fewest = len(_filled(widths, limit))
        tight = next((room for room in range(sum(widths) // fewest, limit, 8) if len(_filled(widths, room)) <= fewest), limit)
        numbers = iter(stats)
        return [[next(numbers) for _ in row] for row in _filled(widths, tight)]

    def _stat_width(self, stat: Stat) -> int:
        return max(self._length(stat.label, 17), self._length(stat.value, 30, bold=True)) + self.px(44)

    def _draw_stats(self, pen: ImageDraw.ImageDraw, stats: Sequence[Stat], top: int) -> None:
        left = self.margin
        for stat in stats:
            width = self._stat_width(stat)
            self._text(pen, left, top, stat.label, 17, MUTED, width)
            self._text(pen, left, top + self.px(24), stat.value, 30, stat.colour, width, bold=True)
            left += width

    def _length(self, text: str, size: float, *, bold: bool = False) -> int:
        return text_width(text, self.px(size), bold=bold)

    def _text(
        self, pen: ImageDraw.ImageDraw, left: int, top: int, text: str, size: float, colour: Colour, room: int, *, bold: bool = False
    ) -> None:
        write_text(pen, left, top, text, self.px(size), colour, room, bold=bold)


def text_width(text: str, size: int, *, bold: bool = False) -> int:
    """Pixels of a line of text."""
    return round(_font(size, bold).getlength(_seen(text)))


def write_text(
    pen: ImageDraw.ImageDraw, left: int, top: int, text: str, size: int, colour: Colour, room: int, *, bold: bool = False
) -> None:
    """Text from its upper left corner; shortened in the middle where it is longer than the room."""
    text = _seen(text)
    kept = len(text)
    shown = text
    while text_width(shown, size, bold=bold) > room and kept > 8:
        kept -= max(1, kept // 16)
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    pen.text((left, top), shown, fill=colour, font=_font(size, bold), anchor="la")


def _seen(text: str) -> str:
    """A line that can be drawn: the library that lays out text fails at ends of lines, and names and words of data sets hold them."""
    return printable(text.encode("utf-8", "replace").decode()).replace("\n", "\\n")


def _filled(widths: Sequence[int], limit: int) -> list[list[int]]:
    """Widths in rows, each filled up to the limit before the next."""
    rows: list[list[int]] = [[]]
    for width in widths:
        if rows[-1] and sum(rows[-1]) + width > limit:
            rows.append([])
        rows[-1].append(width)
    return rows


@functools.cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: it has arrows and the multiplication sign, Greek, Cyrillic and more."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)
