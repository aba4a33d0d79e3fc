"""Writes a conversation down piece by piece: ids, and where supervision, images and learned embeddings stand among them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

from vlmkit.layout.laid_out import Layout, LayoutError, Mark, Span
from vlmkit.layout.pieces import Boundary, ImageTokens, Learned, Piece, Seen, Trusted, Visual
from vlmkit.layout.specials import Specials


class Tokenizer(Protocol):
    """What a layout needs of a tokenizer."""

    @property
    def specials(self) -> Specials:
        """Spelling of every special token -> its id."""

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        """Ids of plain text; no spelling in it becomes a special token, nothing is added around it. `first`: the text
        begins the sequence."""

    def encode_cut(self, text: str, places: Sequence[int], *, first: bool = True) -> tuple[list[int], list[int]]:
        """The same ids, and for each place in the text how many of them begin before it."""


class Writer:
    """Collects ids. Text between special tokens is encoded as one run, as a tokenizer given the whole string would."""

    def __init__(
        self, tokenizer: Tokenizer, placeholder: str, learned: tuple[str, ...], *, partial: bool, begins_anew: bool = False
    ) -> None:
        self.tokenizer = tokenizer
        self.specials = tokenizer.specials
        self.placeholder = self.specials[placeholder]
        self.names = learned
        self.partial = partial
        self.begins_anew = begins_anew
        self.ids = array("q")
        self.pending = ""
        """Text that is not encoded yet."""
        self.edges: list[tuple[int, bool]] = []
        """Places in it where an answer begins (True) or ends (False)."""
        self.begun = 0
        """How many ids stand before a text that the tokenizer was given by itself."""
        self.trims = False
        """Whether blanks right behind the last special token go."""
        self.supervised: list[tuple[int, int]] = []
        self.answer = 0
        """Where the ids of the last answer begin."""
        self.in_answer = False
        self.spans: list[Span] = []
        self.extents: list[tuple[int, int]] = []
        self.learned: list[tuple[int, int]] = []
        self.seen: list[Mark] = []
        self.prefix: int | None = None
        self.boundary = -1
        """Where the last boundary ends."""
        self.spaced = True
        """Whether a word right behind it is set off."""

    def plain(self, text: str) -> None:
        if text and self.spaced and self.at_boundary and not text[0].isspace() and text[0] != "<":
            text = f" {text}"
        self.pending += text

    def trusted(self, text: str) -> None:
        if text:
            self.pieces(self.specials.split(text))

    def pieces(self, pieces: Sequence[str | int]) -> None:
        for piece in pieces:
            if isinstance(piece, str):
                self.plain(piece)
            elif self.specials.trims:
                self.special(piece, 1)
            else:
                self.flush()
                self.ids.append(piece)

    def begin(self, text: str) -> None:
        """Special tokens that the tokenizer puts before the text, whose first word is the first of its string all the same."""
        self.trusted(text)
        self.begun = len(self.ids)

    def special(self, token: int, count: int) -> None:
        """A special token, so many times, with blanks beside it gone where the tokenizer drops them."""
        if token in self.specials.trim_before:
            self.trim(len(self.pending.rstrip()))
        self.flush()
        self.ids += array("q", [token]) * count
        self.trims = token in self.specials.trim_behind

    def trim(self, stop: int, start: int = 0) -> None:
        """Keep the text that is not encoded yet from `start` to `stop`."""
        self.pending = self.pending[start:stop]
        self.edges = [(min(max(place - start, 0), len(self.pending)), begins) for place, begins in self.edges]

    def trim_before(self, before: str, pieces: Sequence[Piece]) -> None:
        """Drop blanks before an image whose first token drops them."""
        first = next((piece for piece in pieces if not isinstance(piece, Learned)), None)
        text = before or getattr(first, "text", None) or getattr(first, "placeholder", None)
        token = self.placeholder if text is None else self.specials.split(text)[0]
        if token in self.specials.trim_before:
            self.trim(len(self.pending.rstrip()))

    def begin_answer(self) -> None:
        self.in_answer = True
        self.edge(True)

    def end_answer(self) -> None:
        self.in_answer = False
        self.edge(False)

    def edge(self, begins: bool) -> None:
        if self.pending:
            self.edges.append((len(self.pending), begins))
        else:
            self.supervise(len(self.ids), begins)

    def supervise(self, place: int, begins: bool) -> None:
        """An answer begins or ends at this place among the ids."""
        if not begins:
            if self.answer < place:
                self.supervised.append((self.answer, place))
            return
        self.answer = place
        if self.prefix is None:
            self.prefix = place

    def end_of_turn(self, after: str) -> None:
        """The first special token that ends an assistant's turn is supervised; what separates turns is not."""
        if not self.in_answer:
            self.trusted(after)
            return
        end, between = self.specials.split_behind_first(after)
        self.pieces(end)
        self.end_answer()
        self.pieces(between)

    def image(self, number: int, image: ImageTokens, pieces: Sequence[Piece], before: str, after: str) -> None:
        in_answer = self.in_answer
        if in_answer:
            self.end_answer()
        if self.specials.trim_before:
            self.trim_before(before, pieces)
        self.flush()
        begin = len(self.ids)
        self.trusted(before)
        placed, marks = 0, len(self.seen)
        for piece in pieces:
            if isinstance(piece, Trusted):
                self.trusted(piece.text)
            elif isinstance(piece, Boundary):
                self.fence(piece)
            elif isinstance(piece, Learned):
                self.flush()
                self.learned.append((len(self.ids), self.names.index(piece.name)))
                self.special(self.placeholder, 1)
            elif isinstance(piece, Seen):
                self.flush()
                length = image.count - piece.start if piece.length is None else piece.length
                self.seen.append(Mark(len(self.ids), number, piece.start, length))
                self.trusted(piece.text)
            else:
                filler = self.placeholder if piece.placeholder is None else self.specials[piece.placeholder]
                self.special(filler, piece.length)
                self.spans.append(Span(len(self.ids) - piece.length, piece.length, number, piece.start))
                placed += piece.length
            if self.begins_anew and isinstance(piece, Visual | Learned):
                self.begun = len(self.ids)
        if len(self.seen) > marks:
            spans = [(span.offset, span.length) for span in self.spans if span.image == number]
            left_out = image.count - covered([*spans, *((mark.start, mark.length) for mark in self.seen[marks:])])
            if left_out and not self.partial:
                raise LayoutError(f"image {number} has {image.count} visual tokens, but the layout neither places nor shows {left_out}")
        elif placed > image.count or (placed < image.count and not self.partial):
            raise LayoutError(f"image {number} has {image.count} visual tokens, but the layout places {placed}")
        self.trusted(after)
        # Text after the image may merge with the words that follow, so the extent ends with the last id that is certain.
        self.extents.append((begin, len(self.ids)))
        if in_answer:
            self.begin_answer()

    @property
    def at_boundary(self) -> bool:
        return self.boundary == len(self.ids) and not self.pending

    def fence(self, boundary: Boundary) -> None:
        if not self.at_boundary:
            self.trusted(boundary.text)
            self.flush()
        self.boundary, self.spaced = len(self.ids), boundary.spaced

    def flush(self) -> None:
        if not (self.pending or self.edges):
            return
        if self.trims and self.pending:
            self.trim(len(self.pending), len(self.pending) - len(self.pending.lstrip()))
            self.trims = not self.pending
        before = len(self.ids)
        if not self.edges:
            self.ids.fromlist(self.tokenizer.encode(self.pending, first=before <= self.begun))
            self.pending = ""
            return
        ids, counts = self.tokenizer.encode_cut(self.pending, [place for place, _ in self.edges], first=before <= self.begun)
        self.ids.fromlist(ids)
        for count, (_, begins) in zip(counts, self.edges, strict=True):
            self.supervise(before + count, begins)
        self.pending = ""
        self.edges.clear()

    def layout(self) -> Layout:
        self.flush()
        prefix = len(self.ids) if self.prefix is None else self.prefix
        return Layout(
            self.ids, tuple(self.supervised), tuple(self.spans), tuple(self.extents), tuple(self.learned), prefix, tuple(self.seen)
        )


def covered(ranges: Sequence[tuple[int, int]]) -> int:
    """How many numbers lie in at least one range (start, length): covered([(0, 4), (2, 3)]) is 5."""
    count = end = 0
    for start, length in sorted(ranges):
        count += max(start + length - max(start, end), 0)
        end = max(end, start + length)
    return count
