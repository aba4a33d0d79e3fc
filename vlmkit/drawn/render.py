"""Pictures with words and shapes in them, what can be asked about them, and what stands in which cell.

Words over textures are made in the manner of SynthText (Gupta et al. 2016, arXiv:1604.06646): face, size, colour and
place are drawn at random. A picture is first composed (what stands where: no pixels), then drawn. Everything follows
from (seed, index).

Cells are squares of 28 x 28 pixels, one visual token each. A picture's *page* is the same picture typed: one character
for each cell. A letter stands in the cell that holds its centre; letters are never closer than 28 pixels, so no cell
holds two. A shape is a character of its own (PICTOGRAMS), as an emoji would be.

    +----+----+----+----+
    |         (red      |         " .. R .. . "
    |  C   A   circle)T |   ->    "C" "A" ...  one character a cell, row by row
    +----+----+----+----+
"""

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vlmkit.drawn.glyphs import FONTS, SHAPES, letter_mask, shape_mask
from vlmkit.drawn.textures import COUNT, SIDE, textures
from vlmkit.drawn.words import HELD_OUT, LETTERS, training_word

CELL = 28
WORD_SHIFT = 3.0
SHAPE_SHIFT = 6.0
COLOURS = {
    "red": (215, 35, 40),
    "green": (30, 150, 55),
    "blue": (40, 70, 215),
    "yellow": (240, 215, 30),
    "purple": (140, 40, 165),
    "orange": (245, 130, 20),
}
NUMBERS = ("zero", "one", "two")
BLANK = ord(" ")
PICTOGRAMS = {(c, s): 128 + i * len(SHAPES) + j for i, c in enumerate(COLOURS) for j, s in enumerate(SHAPES)}
"""The character that stands for a shape of a colour on a page: the bytes from 128 up, which English text leaves free."""

GRIDS = ((4, 4), (3, 5), (3, 6), (4, 5), (5, 4))
"""Rows and columns of cells that pictures have."""

Kind = Literal["word", "lines", "scene", "pair"]


@dataclass(frozen=True)
class Word:
    """Letters in a row; (x, y) is the centre of the first, the next ones follow every `advance` pixels."""

    text: str
    x: float
    y: float
    advance: float
    height: int
    font: str


@dataclass(frozen=True)
class Shape:
    """A coloured shape around the centre (x, y)."""

    colour: str
    shape: str
    x: float
    y: float
    size: int

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def row(self) -> int:
        return int(self.y // CELL)

    @property
    def column(self) -> int:
        return int(self.x // CELL)


@dataclass(frozen=True)
class Question:
    task: Literal["description", "vqa", "ocr"]
    text: str
    answer: str


@dataclass(frozen=True)
class Picture:
    """What stands where, without a pixel."""

    rows: int
    columns: int
    words: tuple[Word, ...] = ()
    shapes: tuple[Shape, ...] = ()

    def page(self) -> np.ndarray:
        """(rows, columns) uint8: the character of each cell."""
        page = np.full((self.rows, self.columns), BLANK, np.uint8)
        for word in self.words:
            for i, letter in enumerate(word.text):
                page[int(word.y // CELL), int(word.x // CELL) + i] = ord(letter)
        for shape in self.shapes:
            page[shape.row, shape.column] = PICTOGRAMS[shape.colour, shape.shape]
        return page

    def questions(self) -> list[Question]:
        """What is asked about this picture, the most general question first; each has exactly one right answer."""
        if self.words:
            return [Question("ocr", "What does it say?", " ".join(w.text for w in self.words))]
        return [Question("description", "Describe the image.", describe(self.shapes)), *_ask(self.shapes)]


# --- composing: what stands where -------------------------------------------------------------------------------------


def compose(rng: random.Random, kind: Kind, grid: tuple[int, int], *, held_out: bool = False) -> Picture:
    """Draw a picture's content: one word; lines full of letters (only to learn letters from); a scene of
    one or two shapes; or a pair of them (only to learn from: it is the harder case)."""
    rows, columns = grid
    if kind in ("scene", "pair"):
        return Picture(rows, columns, shapes=_shapes(rng, rows, columns, 2 if kind == "pair" else rng.randint(1, 2)))
    if kind == "word":
        length = rng.choice([n for n in (3, 4, 5) if n <= columns])
        text = rng.choice(HELD_OUT[length]) if held_out else training_word(rng, length)
        return Picture(rows, columns, words=(_place(rng, text, columns, rng.randrange(rows)),))
    words, shapes = [], []
    for row in range(rows):
        if rng.random() < 0.6:
            text = "".join(rng.choices(LETTERS, k=rng.randint(columns - 1, columns)))
            words.append(_place(rng, text, columns, row))
        else:
            places = [column for column in range(columns) if rng.random() < 0.6]
            shapes += [_shape(rng, row, column, shift=2, largest=30) for column in places]
    if not words and not shapes:
        return compose(rng, kind, grid)
    return Picture(rows, columns, tuple(words), tuple(shapes))


def _place(rng: random.Random, text: str, columns: int, row: int) -> Word:
    """A word in a row of cells, from any column in which it fits."""
    column = rng.randint(0, columns - len(text))
    x, y = (CELL * (i + 0.5) + rng.uniform(-WORD_SHIFT, WORD_SHIFT) for i in (column, row))
    return Word(text, x, y, CELL, rng.randint(16, 26), rng.choice(FONTS))


def _shapes(rng: random.Random, rows: int, columns: int, count: int) -> tuple[Shape, ...]:
    """One shape, or two side by side or one above the other. They do not touch."""
    beside = rng.random() < 0.5
    while True:
        cells = [(rng.randrange(rows), rng.randrange(columns)) for _ in range(count)]
        if count == 2:
            cells[1] = (cells[0][0], cells[1][1]) if beside else (cells[1][0], cells[0][1])
        if len(set(cells)) < count:
            continue
        shapes = [_shape(rng, row, column) for row, column in cells]
        pairs = [(a, b) for i, a in enumerate(shapes) for b in shapes[:i]]
        apart = all(max(abs(a.x - b.x), abs(a.y - b.y)) > (a.size + b.size) / 2 + 1 for a, b in pairs)
        if apart and len({s.name for s in shapes}) == count:
            return tuple(shapes)


def _shape(rng: random.Random, row: int, column: int, shift: float = SHAPE_SHIFT, largest: int = 40) -> Shape:
    x, y = (CELL * (i + 0.5) + rng.uniform(-shift, shift) for i in (column, row))
    return Shape(rng.choice(tuple(COLOURS)), rng.choice(SHAPES), x, y, rng.randint(28, largest))


# --- asking -----------------------------------------------------------------------------------------------------------


def describe(shapes: tuple[Shape, ...]) -> str:
    """The one right description of a scene: of two shapes the left or upper one comes first, more are listed row by row."""
    if len(shapes) == 2:
        first, second, relation = _relation(*shapes)
        return f"{_article(first.name)} {relation} {_article(second.name)}"
    *others, last = (_article(s.name) for s in sorted(shapes, key=lambda s: (s.row, s.x)))
    return f"{', '.join(others)} and {last}" if others else last


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _relation(a: Shape, b: Shape) -> tuple[Shape, Shape, str]:
    if a.row == b.row:
        return (a, b, "left of") if a.x < b.x else (b, a, "left of")
    return (a, b, "above") if a.y < b.y else (b, a, "above")


def _ask(shapes: tuple[Shape, ...]) -> list[Question]:
    """How many; the colour of a shape that is there once; the shape of a colour that is there once; what stands where."""
    asked = [Question("vqa", "How many shapes are there?", NUMBERS[len(shapes)])] if len(shapes) < len(NUMBERS) else []
    colours, kinds = [s.colour for s in shapes], [s.shape for s in shapes]
    for s in shapes:
        if kinds.count(s.shape) == 1:
            asked.append(Question("vqa", f"What colour is the {s.shape}?", s.colour))
        if colours.count(s.colour) == 1:
            asked.append(Question("vqa", f"Which shape is {s.colour}?", s.shape))
    if len(shapes) == 2:
        first, second, relation = _relation(*shapes)
        asked.append(Question("vqa", f"What is {relation} the {second.name}?", _article(first.name)))
    return asked


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw(picture: Picture, rng: random.Random) -> np.ndarray:
    """(28 rows, 28 columns, 3) uint8: the picture over a random texture."""
    height, width = picture.rows * CELL, picture.columns * CELL
    top, left = rng.randrange(SIDE - height), rng.randrange(SIDE - width)
    texture = textures()[rng.randrange(COUNT), top : top + height, left : left + width, None]
    dark, light = _background(rng)
    canvas = dark + texture * (light - dark)
    for word in picture.words:
        _draw_word(canvas, word, _contrasting(rng, canvas, word))
    for shape in picture.shapes:
        mask = shape_mask(shape.shape, shape.size)
        colour = np.array([min(255, max(0, c + rng.uniform(-16, 16))) for c in COLOURS[shape.colour]], np.float32)
        _blend(canvas, mask, round(shape.y - shape.size / 2), round(shape.x - shape.size / 2), colour)
    pixels: np.ndarray = canvas.astype(np.uint8)
    return pixels


def _background(rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """Two dull colours, at most 90 levels apart."""
    base, tint = rng.uniform(20, 235), [rng.uniform(-20, 20) for _ in range(3)]
    span = rng.uniform(10, 90)
    middle = min(max(base, span / 2), 255 - span / 2)
    colour = np.array([middle + t for t in tint], np.float32)
    return (colour - span / 2).clip(0, 255), (colour + span / 2).clip(0, 255)


def _contrasting(rng: random.Random, canvas: np.ndarray, word: Word) -> np.ndarray:
    """A colour for the word at least 80 levels of grey away from what is behind it on average."""
    y, x = int(word.y), int(word.x)
    behind = float(canvas[max(0, y - 14) : y + 14, x : x + int(word.advance * len(word.text))].mean())
    while True:
        colour = [rng.uniform(0, 255) for _ in range(3)]
        if abs(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] - behind) > 80:
            return np.array(colour, np.float32)


def _draw_word(canvas: np.ndarray, word: Word, colour: np.ndarray) -> None:
    widest = int(word.advance) - 1
    for i, letter in enumerate(word.text):
        mask = letter_mask(word.font, letter, word.height, widest)
        x = word.x + i * word.advance - mask.shape[1] / 2
        _blend(canvas, mask, round(word.y - word.height / 2), round(x), colour)


def _blend(canvas: np.ndarray, mask: np.ndarray, top: int, left: int, colour: np.ndarray) -> None:
    """Paint the colour through the mask, whose corner stands at (top, left); what falls outside is cut."""
    height, width = canvas.shape[:2]
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(height, top + mask.shape[0]), min(width, left + mask.shape[1])
    behind = canvas[y0:y1, x0:x1]
    behind += mask[y0 - top : y1 - top, x0 - left : x1 - left, None] * (colour - behind)


def picture_at(seed: int, index: int, kind: Kind, grid: tuple[int, int], *, held_out: bool = False) -> tuple[Picture, np.ndarray]:
    """The picture that (seed, index) stands for, composed and drawn."""
    rng = random.Random(seed << 40 | index)
    picture = compose(rng, kind, grid, held_out=held_out)
    return picture, draw(picture, rng)
