"""Positions by time, row and column of a laid-out conversation, for language models that turn by all three.

Multimodal rotary positions of Qwen2-VL (Wang et al. 2024, arXiv:2409.12191, section 2.1), for every layout. A 2x3 view between words:

    token      What  is  v  v  v  v  v  v  this  ?
    time          0   1  2  2  2  2  2  2     5  6
    row           0   1  2  2  2  3  3  3     5  6
    column        0   1  2  3  4  2  3  4     5  6

- A visual token stands at its frame, row and column in its view, counted from where its view begins.
- A view begins one behind the largest number so far, whichever axis has it.
- Everything else stands there on all three axes: words, brackets, tags, learned embeddings, and tokens of a view that stand on no grid.
  So it is with what stands between the rows of one view, too: the next row is beside the first as before, for the view has begun.

Each tile and each view of one frame begins anew. Frames count as the language model receives them, whatever time lies between.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from vlmkit.features import Grid
from vlmkit.layout.laid_out import Layout, Span
from vlmkit.layout.pieces import ImageTokens


def three_positions(layout: Layout, images: Sequence[ImageTokens]) -> tuple[array[int], array[int], array[int]]:
    """Time, row and column of every token, S numbers each. `images` are those that the layout's spans count."""
    return positions_of(layout.spans, [image.grids for image in images], len(layout.ids))


def positions_taken(layout: Layout, images: Sequence[ImageTokens], three: bool) -> int:
    """How many of a language model's positions a conversation takes: one a token, or where there are three as far as the largest goes."""
    return max(map(max, three_positions(layout, images)), default=-1) + 1 if three and layout.ids else len(layout.ids)


def positions_of(spans: Sequence[Span], images: Sequence[Sequence[Grid]], length: int) -> tuple[array[int], array[int], array[int]]:
    """The same of `length` tokens, for the grids of each image's views."""
    walk = _Walk()
    for span in spans:
        walk.text(span.start - len(walk.time))
        first, last = span.offset, span.offset + span.length
        start = 0
        for view, grid in enumerate(images[span.image]):
            begin, end = max(first, start) - start, min(last, start + grid.tokens) - start
            if begin < end:
                walk.text(min(end, grid.prefix) - begin)
                walk.view((span.image, view), grid.rows, grid.columns, max(begin - grid.prefix, 0), end - grid.prefix)
            start += grid.tokens
    walk.text(length - len(walk.time))
    return walk.time, walk.row, walk.column


class _Walk:
    def __init__(self) -> None:
        self.time, self.row, self.column = array("q"), array("q"), array("q")
        self.next = 0
        """One behind the largest number so far."""
        self.begun: dict[tuple[int, int], int] = {}
        """(image, view) -> where it begins."""

    def text(self, length: int) -> None:
        """Tokens that have one number on all axes."""
        numbers = range(self.next, self.next + max(length, 0))
        for axis in (self.time, self.row, self.column):
            axis.extend(numbers)
        self.next = numbers.stop

    def view(self, which: tuple[int, int], rows: int, columns: int, first: int, last: int) -> None:
        """Cells `first` to `last` of a view, row by row."""
        begin = self.begun.setdefault(which, self.next) if first < last else self.next
        while first < last:
            line, column = divmod(first, columns)
            length = min(columns - column, last - first)
            frame, row = divmod(line, rows)
            self.time.extend([begin + frame] * length)
            self.row.extend([begin + row] * length)
            self.column.extend(range(begin + column, begin + column + length))
            self.next = max(self.next, begin + frame + 1, begin + row + 1, begin + column + length)
            first += length
