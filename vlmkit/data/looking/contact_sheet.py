"""A contact sheet of samples: their images, and below what is said about them, turn by turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from vlmkit.conversation import Conversation, read_conversation
from vlmkit.data.sample import DataError, Sample
from vlmkit.layout.laid_out import LayoutError
from vlmkit.page import ACCENT, INK, MUTED, RULE, Colour, text_width, write_text
from vlmkit.preprocess.images import ImageError, open_image

CELL_WIDTH, PICTURE_HEIGHT = 400, 300
"""Pixels of a cell, and of the pictures in it at most."""
MARGIN, GAP, SPACE = 40, 32, 8
COLUMNS = 4
TYPE, LINE = 15, 21
"""Size of the type, and the height of a line of it."""
MOST_PICTURES = 9
MOST_LINES = 26
"""Of words in a cell."""
_LONGEST = 4000
"""Letters of a turn that are looked at."""


@dataclass(frozen=True)
class Line:
    text: str
    colour: Colour = INK
    bold: bool = False
    above: bool = False
    """Whether a rule stands above."""


def draw(title: str, samples: Sequence[tuple[str, Sample | DataError]]) -> Image.Image:
    """The sheet: a cell for each sample under what it is called; of one that cannot be read, why."""
    cells = [_cell(name, sample) for name, sample in samples]
    columns = max(1, min(COLUMNS, len(cells)))
    ends = [0] * columns
    places = []
    for cell in cells:  # each below the column that is shortest so far
        column = ends.index(min(ends))
        places.append((column, ends[column]))
        ends[column] += cell.height + GAP
    head = 56
    width = 2 * MARGIN + columns * CELL_WIDTH + (columns - 1) * GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + head + max(ends) - GAP), "white")
    pen = ImageDraw.Draw(sheet)
    write_text(pen, MARGIN, MARGIN, title, 24, INK, width - 2 * MARGIN, bold=True)
    for cell, (column, top) in zip(cells, places, strict=True):
        sheet.paste(cell, (MARGIN + column * (CELL_WIDTH + GAP), MARGIN + head + top))
    return sheet


def _cell(name: str, sample: Sample | DataError) -> Image.Image:
    if isinstance(sample, DataError):
        return _drawn([], [Line(name, MUTED, bold=True), *(Line(text) for text in wrapped(str(sample), TYPE))])
    pictures: list[Image.Image] = []
    notes = [Line(name, MUTED, bold=True)]
    sizes = []
    for number, image in enumerate(sample.images):
        try:
            picture = open_image(image)
        except ImageError as error:
            notes += [Line(text, ACCENT) for text in wrapped(f"image {number}: {error}", TYPE)]
            continue
        sizes.append(f"{picture.width} \N{MULTIPLICATION SIGN} {picture.height}")
        if number < MOST_PICTURES:
            pictures.append(picture)
    more = f", {len(sizes) - len(pictures)} not shown" if len(sizes) > len(pictures) else ""
    notes.append(Line(", ".join(dict.fromkeys(sizes)) + more if sizes else "no image", MUTED))
    lines = [line for number, conversation in enumerate(sample.conversations) for line in _turns(conversation, number > 0)]
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], Line(f"… {len(lines) - MOST_LINES + 1} more lines", MUTED)]
    return _drawn(pictures, [*notes, *lines])


def _turns(conversation: Conversation, separated: bool) -> Iterator[Line]:
    """What is said, the assistant's words in the colour that stands for what is learned."""
    try:
        turns, _ = read_conversation(conversation)
    except LayoutError as error:
        yield from (Line(text, MUTED) for text in wrapped(str(error), TYPE))
        return
    for number, turn in enumerate(turns):
        words = "".join(f"[image {part}] " if isinstance(part, int) else part for part in turn.content)
        colour = ACCENT if turn.role == "assistant" else INK
        for place, text in enumerate(wrapped(f"{turn.role}: {words}", TYPE)):
            yield Line(text, colour, above=separated and number == place == 0)


def _drawn(pictures: Sequence[Image.Image], lines: Sequence[Line]) -> Image.Image:
    board = _board(pictures)
    top = board.height + SPACE if board else 0
    rules = sum(SPACE for line in lines if line.above)
    cell = Image.new("RGB", (CELL_WIDTH, top + LINE * len(lines) + rules), "white")
    pen = ImageDraw.Draw(cell)
    if board:
        cell.paste(board, (0, 0))
    for line in lines:
        if line.above:
            pen.line((0, top + SPACE // 2, CELL_WIDTH // 3, top + SPACE // 2), fill=RULE)
            top += SPACE
        write_text(pen, 0, top, line.text, TYPE, line.colour, CELL_WIDTH, bold=line.bold)
        top += LINE
    return cell


def _board(pictures: Sequence[Image.Image]) -> Image.Image | None:
    """One picture as large as a cell, several as small ones in rows of three."""
    if not pictures:
        return None
    if len(pictures) == 1:
        return _within(pictures[0], CELL_WIDTH, PICTURE_HEIGHT)
    across = 2 if len(pictures) in (2, 4) else 3
    side = (CELL_WIDTH - (across - 1) * SPACE) // across
    small = [_within(picture, side, side) for picture in pictures]
    rows = [small[first : first + across] for first in range(0, len(small), across)]
    heights = [max(picture.height for picture in row) for row in rows]
    board = Image.new("RGB", (CELL_WIDTH, sum(heights) + SPACE * (len(rows) - 1)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for number, picture in enumerate(row):
            board.paste(picture, (number * (side + SPACE), top))
        top += height + SPACE
    return board


def _within(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Shrunk where it is larger, enlarged by a whole factor where it is less than half as large."""
    factor = min(width / picture.width, height / picture.height)
    if factor >= 2:
        return picture.resize((picture.width * int(factor), picture.height * int(factor)), Image.Resampling.NEAREST)
    if factor >= 1:
        return picture
    return picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))), Image.Resampling.LANCZOS)


def wrapped(text: str, size: int, width: int = CELL_WIDTH) -> list[str]:
    """Text in lines that are no wider, broken between words, or within one that is wider than a line."""
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    text = "".join(char if char.isprintable() or char == "\n" else " " for char in text)
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if text_width(longer, size) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            while text_width(word, size) > width:
                kept = _fitting(word, size, width)
                lines.append(word[:kept])
                word = word[kept:]
            line = word
        if line:
            lines.append(line)
    return lines


def _fitting(word: str, size: int, width: int) -> int:
    """Letters of a word that a line holds, at least one."""
    kept = 1
    while kept < len(word) and text_width(word[: kept + 1], size) <= width:
        kept += 1
    return kept
