"""From a conversation and the grids of its images to token ids, labels and the places of visual tokens.

Everything is a piece. A template's own text is trusted and may hold special tokens; text that came from a user or a
data set is plain and can never become one; a run of visual tokens is a piece too, so its place is known while ids are laid
out and is never searched for again.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

from vlmkit.features import Grid
from vlmkit.layout import layouts
from vlmkit.layout.specials import Specials
from vlmkit.layout.template import Template
from vlmkit.preprocess.geometry import ImagePlan
from vlmkit.spec import Spec

IGNORE = -100
"""Label of a position that is not supervised, as torch's cross-entropy has it."""


class LayoutError(ValueError):
    """A conversation that cannot be laid out."""


class Tokenizer(Protocol):
    """What a layout needs of a tokenizer."""

    @property
    def specials(self) -> Specials:
        """Spelling of every special token -> its id."""

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        """Ids of plain text; no spelling in it becomes a special token, nothing is added around it. `first`: the text
        begins the sequence."""


@dataclass(frozen=True, slots=True)
class Trusted:
    """Text of a template: special tokens in it are meant."""

    text: str


@dataclass(frozen=True, slots=True)
class Visual:
    """Visual tokens `start` to `start + length` of an image, in the order in which the connector returns them."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Learned:
    """One learned embedding of the model, by its name in `TokenLayout.learned`."""

    name: str


@dataclass(frozen=True, slots=True)
class Boundary:
    """A special token that stands once where two of it meet. A word right behind it is set off by a space."""

    text: str


Piece = Trusted | Visual | Learned | Boundary


@dataclass(frozen=True)
class ImageTokens:
    """One image as a layout sees it: its plan, and the grid of each view after the connector."""

    plan: ImagePlan
    grids: tuple[Grid, ...]

    @functools.cached_property
    def count(self) -> int:
        """Visual tokens as the connector returns them, those that a layout leaves out included."""
        return sum(grid.tokens for grid in self.grids)


class Turn(NamedTuple):
    """One message. `content` holds plain text and, where an image stands, its number in the conversation."""

    role: Literal["system", "user", "assistant"]
    content: tuple[str | int, ...]


class Span(NamedTuple):
    """ids[start : start + length] are visual tokens `offset` to `offset + length` of image number `image`."""

    start: int
    length: int
    image: int
    offset: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A laid-out conversation of S tokens.

    ids: S numbers, as an array of 64-bit integers, which numpy and torch copy as it is. supervised: where the ids begin and end
    that are their own labels, the assistant's words and the end of its turn. extents: per image, in order of appearance,
    where the pieces around it begin and end.
    """

    ids: array[int]
    supervised: tuple[tuple[int, int], ...]
    spans: tuple[Span, ...]
    extents: tuple[tuple[int, int], ...]
    learned: tuple[tuple[int, int], ...] = ()
    """(place, number of the learned embedding that stands there)"""
    prefix: int = 0
    """Tokens before the assistant's first word: what a prefix language model sees in both directions."""

    @property
    def labels(self) -> tuple[int, ...]:
        """S numbers: the id itself where it is supervised, IGNORE elsewhere."""
        labels = [IGNORE] * len(self.ids)
        for start, stop in self.supervised:
            labels[start:stop] = self.ids[start:stop]
        return tuple(labels)

    def truncated(self, length: int) -> Layout:
        """At most `length` tokens from the front. An image that does not fit whole goes with all that follows it."""
        end = min(length, len(self.ids))
        for start, stop in self.extents:
            if start < end < stop:
                end = start
        return Layout(
            self.ids[:end],
            tuple((start, min(stop, end)) for start, stop in self.supervised if start < end),
            tuple(span for span in self.spans if span.start < end),
            tuple(extent for extent in self.extents if extent[1] <= end),
            tuple(place for place in self.learned if place[0] < end),
            min(self.prefix, end),
        )


@dataclass(frozen=True, kw_only=True)
class TokenLayout(Spec):
    """Base of layouts. A subclass says which pieces stand for one image; turns come from the template."""

    registry = layouts

    template: Template
    placeholder: str
    """The tokenizer's reserved token whose id fills the places of visual tokens."""
    after_image: str = ""
    """Template text after each image."""

    learned: ClassVar[tuple[str, ...]] = ()
    """Names of learned embeddings that stand among the visual tokens; the model has a vector of width D_lm for each."""
    partial: ClassVar[bool] = False
    """Whether visual tokens may be left out (those over padding, say)."""

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        """The pieces of one image. Every visual token appears in them exactly once, or at most once where `partial`."""
        raise NotImplementedError

    def around_image(self, first: bool, last: bool) -> tuple[str, str]:
        """Template text before and after an image that is the first or the last thing of its message, or neither."""
        return "", self.after_image

    def begins_behind(self, turns: Sequence[Turn]) -> int | None:
        """Number of the image behind which the template's beginning stands; None: before everything."""
        return None

    def places(self, image: ImageTokens) -> int:
        """Places that an image takes in the sequence: its visual tokens and learned embeddings, without the text around."""
        pieces = self.image_pieces(image)
        return sum(piece.length if isinstance(piece, Visual) else isinstance(piece, Learned) for piece in pieces)

    def required_specials(self) -> tuple[str, ...]:
        """Special tokens that the tokenizer must have."""
        return (self.placeholder, *self.template.specials)

    def lay_out(
        self,
        turns: Sequence[Turn],
        images: Sequence[ImageTokens],
        tokenizer: Tokenizer,
        *,
        add_generation_prompt: bool = False,
    ) -> Layout:
        """Ids, labels and spans of a conversation. Raises LayoutError for roles out of place or images that do not fit."""
        template = self.template
        writer = _Writer(tokenizer, self)
        begins_behind = self.begins_behind(turns)
        if begins_behind is None:
            writer.trusted(template.begin)
        if template.default_system is not None and (not turns or turns[0].role != "system"):
            turns = (Turn("system", (template.default_system,)), *turns)
        used = [part for _, content in turns for part in content if isinstance(part, int)]
        if sorted(used) != list(range(len(images))):
            raise LayoutError(f"the conversation refers to images {used}, but {len(images)} image(s) were given")
        for role, content in turns:
            before, after = template.around(role)
            writer.trusted(before)
            if role == "assistant":
                writer.begin_answer()
                writer.plain(template.before_answer)
            if content and isinstance(content[0], str):
                writer.trusted(template.before_text)
            last = len(content) - 1
            for number, part in enumerate(content):
                if isinstance(part, str):
                    writer.plain(part)
                else:
                    writer.image(part, images[part], *self.around_image(number == 0, number == last))
                    if part == begins_behind:
                        writer.trusted(template.begin)
            writer.end_of_turn(after)
        if add_generation_prompt:
            writer.trusted(template.assistant[0])
            writer.end_prefix()
        return writer.layout()


class _Writer:
    """Collects ids. Text between special tokens is encoded as one run, as a tokenizer given the whole string would;
    it is cut only where supervision begins or ends, which is where generation has to begin."""

    def __init__(self, tokenizer: Tokenizer, tokens: TokenLayout) -> None:
        self.encode = tokenizer.encode
        self.specials = tokenizer.specials
        self.tokens = tokens
        self.placeholder = array("q", [self.specials[tokens.placeholder]])
        self.ids = array("q")
        self.pending = ""
        """Text that is not encoded yet."""
        self.supervised: list[tuple[int, int]] = []
        self.answer: int | None = None
        """Where the ids begin that are supervised; None: outside of an answer."""
        self.spans: list[Span] = []
        self.extents: list[tuple[int, int]] = []
        self.learned: list[tuple[int, int]] = []
        self.prefix: int | None = None
        self.boundary = -1
        """Where the last boundary ends."""

    def plain(self, text: str) -> None:
        if text and self.at_boundary and not text[0].isspace() and text[0] != "<":
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

    def image(self, number: int, image: ImageTokens, before: str, after: str) -> None:
        in_answer = self.answer is not None
        if in_answer:
            self.end_answer()
        self.flush()
        begin = len(self.ids)
        self.trusted(before)
        placed = 0
        for piece in self.tokens.image_pieces(image):
            if isinstance(piece, Trusted):
                self.trusted(piece.text)
            elif isinstance(piece, Boundary):
                self.fence(piece.text)
            elif isinstance(piece, Learned):
                self.flush()
                self.learned.append((len(self.ids), self.tokens.learned.index(piece.name)))
                self.ids += self.placeholder
            else:
                self.flush()
                self.spans.append(Span(len(self.ids), piece.length, number, piece.start))
                self.ids += self.placeholder * piece.length
                placed += piece.length
        if placed > image.count or (placed < image.count and not self.tokens.partial):
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

    def fence(self, text: str) -> None:
        if not self.at_boundary:
            self.trusted(text)
            self.flush()
        self.boundary = len(self.ids)

    def flush(self) -> None:
        if self.pending:
            self.ids.fromlist(self.encode(self.pending, first=not self.ids))
            self.pending = ""

    def layout(self) -> Layout:
        self.flush()
        prefix = len(self.ids) if self.prefix is None else self.prefix
        return Layout(self.ids, tuple(self.supervised), tuple(self.spans), tuple(self.extents), tuple(self.learned), prefix)
