"""A contact sheet of one photograph: how each of several models cuts it, models that cut alike in one cell.

Views are drawn as `vlmkit.show` draws them and then made small enough for a cell; lines stand between visual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

from vlmkit.architecture import Architecture
from vlmkit.layout.pieces import ImageTokens
from vlmkit.page import ACCENT, INK, MUTED, RULE, text_width, write_text
from vlmkit.preprocess.geometry import Size
from vlmkit.show.mosaic import Lines, boards, covered
from vlmkit.show.sight import Pixels, Sight, placed, see
from vlmkit.show.words import across, grids_across

Item = TypeVar("Item")

CELL_WIDTH, PICTURE_HEIGHT = 400, 300
"""Pixels of a cell, and of the picture in it at most."""
MARGIN, GAP = 40, 32
COLUMNS = 4
NAME, WORDS, LINE = 19, 17, 25
"""Sizes of the type, and the height of a line of it."""
MOST_LINES = 8
"""Of words in a cell: a reason why a model refuses the photograph may be long."""


@dataclass(frozen=True)
class Cut:
    """Models that see an image alike, or refuse it for the same reason."""

    models: tuple[Architecture, ...]
    tokens: ImageTokens | str

    @property
    def names(self) -> list[str]:
        return [model.name for model in self.models]

    @property
    def count(self) -> int:
        """Visual tokens that each of the language models receives; none of a refused image."""
        return 0 if isinstance(self.tokens, str) else self.models[0].layout.places(self.tokens)

    @property
    def left(self) -> int:
        """Visual tokens that each of the layouts leaves out."""
        return 0 if isinstance(self.tokens, str) else int((~placed(self.models[0], self.tokens)).sum())


def alike(models: Sequence[tuple[Architecture, ImageTokens | str]]) -> list[Cut]:
    """The models with what an image is for each, grouped by what they get of it; most tokens first, refusals
    last."""
    groups: dict[object, tuple[list[Architecture], ImageTokens | str]] = {}
    for model, tokens in models:
        key: object = tokens
        if not isinstance(tokens, str):
            kept = (model.layout.places(tokens), placed(model, tokens).tobytes())
            key = (tokens, kept, model.encoder.patch_size, model.policy.resample, model.policy.antialias)
        groups.setdefault(key, ([], tokens))[0].append(model)
    cuts = [Cut(tuple(members), tokens) for members, tokens in groups.values()]
    return sorted(cuts, key=lambda cut: -cut.count)


def draw_sheet(photo: Pixels, cuts: Sequence[Cut], title: str) -> Image.Image:
    """The sheet: the photograph (H, W, 3) first, then a cell for each cut."""
    words = f"{across(Size(*photo.shape[:2]))} pixels. A blue cell is one visual token; grey cells are patches whose tokens lie on no grid."
    if any(cut.left for cut in cuts):
        words += " Faded tokens are left out."
    cells = [_Cell(_within(Image.fromarray(photo)), [title], "", words)]
    for cut in cuts:
        if isinstance(cut.tokens, str):
            cells.append(_Cell(None, cut.names, "", cut.tokens))
        else:
            cells.append(_Cell(picture(see(photo, cut.models[0])), cut.names, f"{cut.count:,} visual tokens", _words(cut)))
    columns = min(COLUMNS, len(cells))
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    width = 2 * MARGIN + columns * CELL_WIDTH + (columns - 1) * GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + sum(heights) + GAP * (len(rows) - 1)), "white")
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for number, cell in enumerate(row):
            cell.draw(sheet, MARGIN + number * (CELL_WIDTH + GAP), top)
        top += height + GAP
    return sheet


def picture(sight: Sight) -> Image.Image:
    """The views of every render side by side, in as many rows as make them largest in a cell."""
    canvases = [render.canvas for render in sight.plan.renders]
    scale = max(1, PICTURE_HEIGHT // max(max(canvas.height, canvas.width) for canvas in canvases))
    across_at_best = max(range(1, len(canvases) + 1), key=lambda count: _fit(*_extent(_in_rows(canvases, count))))
    width, height = _extent(_in_rows(canvases, across_at_best))
    shrunk = min(1.0, _fit(width * scale, height * scale))
    line, gap = max(1, round(0.6 / shrunk)), round(8 / shrunk)
    on_grid = covered(sight.patches[0], sight.tokens.grids[0]) is not None
    parts = boards(sight, scale, Lines(patch=0 if on_grid else line, token=line))
    rows = [_beside(row, gap) for row in _in_rows(parts, across_at_best)]
    return _within(Image.fromarray(_beside([row.swapaxes(0, 1) for row in rows], gap).swapaxes(0, 1)))


def _in_rows(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    return [items[first : first + count] for first in range(0, len(items), count)]


def _extent(rows: Sequence[Sequence[Size]]) -> tuple[int, int]:
    """Width and height of canvases in rows."""
    return max(sum(canvas.width for canvas in row) for row in rows), sum(max(canvas.height for canvas in row) for row in rows)


def _beside(parts: Sequence[Pixels], gap: int) -> Pixels:
    """Pictures from left to right on white, their upper edges on one line."""
    board = np.full((max(len(part) for part in parts), sum(part.shape[1] + gap for part in parts) - gap, 3), 255, np.uint8)
    left = 0
    for part in parts:
        board[: part.shape[0], left : left + part.shape[1]] = part
        left += part.shape[1] + gap
    return board


@dataclass(frozen=True)
class _Cell:
    picture: Image.Image | None
    names: Sequence[str]
    number: str
    words: str

    @property
    def height(self) -> int:
        return (PICTURE_HEIGHT + 14 if self.picture else 0) + LINE * (len(self._names) + bool(self.number) + len(self._words))

    @property
    def _names(self) -> list[str]:
        return wrapped([f"{name}," for name in self.names[:-1]] + [self.names[-1]], NAME, bold=True)

    @property
    def _words(self) -> list[str]:
        times = "\N{MULTIPLICATION SIGN}"
        words = self.words.replace(f" {times} ", f"\N{NO-BREAK SPACE}{times}\N{NO-BREAK SPACE}")
        lines = wrapped(words.split(" "), WORDS)
        return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], f"{lines[MOST_LINES - 1]} …"]

    def draw(self, sheet: Image.Image, left: int, top: int) -> None:
        pen = ImageDraw.Draw(sheet)
        if self.picture:
            low = top + PICTURE_HEIGHT - self.picture.height
            sheet.paste(self.picture, (left, low))
            top += PICTURE_HEIGHT + 14
        else:
            pen.line((left, top - 6, left + CELL_WIDTH - 1, top - 6), fill=RULE)
        lines = [(name, NAME, INK, True) for name in self._names]
        lines += [(self.number, WORDS, ACCENT, True)] if self.number else []
        lines += [(line, WORDS, MUTED, False) for line in self._words]
        for text, size, colour, bold in lines:
            write_text(pen, left, top, text, size, colour, CELL_WIDTH, bold=bold)
            top += LINE


def wrapped(words: Sequence[str], size: int, *, bold: bool = False) -> list[str]:
    """Words in lines no wider than a cell, where they can be; a word is never broken."""
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, bold=bold) <= CELL_WIDTH:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _words(cut: Cut) -> str:
    model, tokens = cut.models[0], cut.tokens
    assert isinstance(tokens, ImageTokens)
    views, grids = tokens.plan.views, grids_across(tokens.grids)
    seen = ", ".join(dict.fromkeys(map(across, views)))
    many = f"{len(views)} views of " if len(views) > 1 else ""
    learned = cut.count + cut.left - tokens.count
    words = [f"{cut.left:,} of {tokens.count:,} left out" if cut.left else "", f"{learned:,} learned embeddings added" if learned else ""]
    return ", ".join(filter(None, [f"{model.policy.kind}: {many}{seen}", f"tokens {grids}{' each' if many else ''}", *words]))


def _fit(width: int, height: int) -> float:
    """The factor that takes a picture into a cell."""
    return min(CELL_WIDTH / width, PICTURE_HEIGHT / height)


def _within(image: Image.Image) -> Image.Image:
    """Shrunk to a cell where it is larger."""
    factor = _fit(*image.size)
    if factor >= 1:
        return image
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))), Image.Resampling.LANCZOS)
