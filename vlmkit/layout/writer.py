"""Writes a conversation down piece by piece: ids, and where supervision, images and learned embeddings stand among them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

from vlmkit.layout.laid_out import Layout, LayoutError, Span
from vlmkit.layout.pieces import Boundary, ImageTokens, Learned, Piece, Seen, Trusted
from vlmkit.layout.specials import Specials


class Tokenizer(Protocol):
    """What a layout needs of a tokenizer."""

    @property
    def specials(self) -> Specials:
        """Spelling of every special token -> its id."""

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        """Ids of plain text; no spelling in it becomes a special token, nothing is added around it. `first`: the text
        begins the sequence."""


class Writer:
    """Collects ids. Text between special tokens is encoded as one run, as a tokenizer given the whole string would;
    it is cut only where supervision begins or ends, which is where generation has to begin."""

    def __init__(self, tokenizer: Tokenizer, placeholder: str, learned: tuple[str, ...], *, partial: bool) -> None:
        self.encode = tokenizer.encode
        self.specials = tokenizer.specials
        self.placeholder = array("q", [self.specials[placeholder]])
        self.names = learned
        self.partial = partial
        self.ids = array("q")
        self.pending = ""
        """Text that is not encoded yet."""
        self.supervised: list[tuple[int, int]] = []
        self.answer: int | None = None
        """Where the ids begin that are supervised; None: outside of an answer."""
        self.spans: list[Span] = []
        self.extents: list[tuple[int, int]] = []
        self.learned: list[tuple[int, int]] = []
        self.seen: list[tuple[int, int]] = []
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
            else:
                self.flush()
                self.ids.append(piece)

    def begin_answer(self) -> None:
        self.end_prefix()
        self.flush()
        self.answer = len(self.ids)

    def end_answer(self) -> None:
        self.flush()
        assert self.answer is not None
        if self.answer < len(self.ids):
            self.supervised.append((self.answer, len(self.ids)))
        self.answer = None

    def end_prefix(self) -> None:
        if self.prefix is None:
            self.flush()
            self.prefix = len(self.ids)

    def end_of_turn(self, after: str) -> None:
        """The first special token that ends an assistant's turn is supervised; what separates turns is not."""
        if self.answer is None:
            self.trusted(after)
            return
        end, between = self.specials.split_behind_first(after)
        self.pieces(end)
        self.end_answer()
        self.pieces(between)

    def image(self, number: int, image: ImageTokens, pieces: Sequence[Piece], before: str, after: str) -> None:
        in_answer = self.answer is not None
        if in_answer:
            self.end_answer()
        self.flush()
        begin = len(self.ids)
        self.trusted(before)
        placed, seen = 0, False
        for piece in pieces:
            if isinstance(piece, Trusted):
                self.trusted(piece.text)
            elif isinstance(piece, Boundary):
                self.fence(piece)
            elif isinstance(piece, Learned):
                self.flush()
                self.learned.append((len(self.ids), self.names.index(piece.name)))
                self.ids += self.placeholder
            elif isinstance(piece, Seen):
                self.flush()
                self.seen.append((len(self.ids), number))
                seen = True
                self.trusted(piece.text)
            else:
                self.flush()
                self.spans.append(Span(len(self.ids), piece.length, number, piece.start))
                filler = self.placeholder if piece.placeholder is None else array("q", [self.specials[piece.placeholder]])
                self.ids += filler * piece.length
                placed += piece.length
        if seen and placed:
            raise LayoutError(f"image {number} is looked at by cross-attention, but {placed} of its visual tokens are placed as well")
        if placed > image.count or (placed < image.count and not (self.partial or seen)):
            raise LayoutError(f"image {number} has {image.count} visual tokens, but the layout places {placed}")
        self.trusted(after)
        # Text after the image may merge with the words that follow, so the extent ends with the last id that is certain.
        self.extents.append((begin, len(self.ids)))
        if in_answer:
            self.flush()
            self.answer = len(self.ids)

    @property
    def at_boundary(self) -> bool:
        return self.boundary == len(self.ids) and not self.pending

    def fence(self, boundary: Boundary) -> None:
        if not self.at_boundary:
            self.trusted(boundary.text)
            self.flush()
        self.boundary, self.spaced = len(self.ids), boundary.spaced

    def flush(self) -> None:
        if self.pending:
            self.ids.fromlist(self.encode(self.pending, first=not self.ids))
            self.pending = ""

    def layout(self) -> Layout:
        self.flush()
        prefix = len(self.ids) if self.prefix is None else self.prefix
        return Layout(
            self.ids, tuple(self.supervised), tuple(self.spans), tuple(self.extents), tuple(self.learned), prefix, tuple(self.seen)
        )
