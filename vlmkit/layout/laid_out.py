"""A conversation that is laid out: its ids, and what stands where among them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Literal, NamedTuple

IGNORE = -100
"""Label of a position that is not supervised, as torch's cross-entropy has it."""


class LayoutError(ValueError):
    """A conversation that cannot be laid out."""


class Turn(NamedTuple):
    """One message. `content` holds plain text and, where an image stands, its number in the conversation."""

    role: Literal["system", "user", "assistant"]
    content: tuple[str | int, ...]
    as_string: bool = False
    """Whether the content was given as one string and not as a list of items: a Jinja template may tell them apart."""


class Span(NamedTuple):
    """ids[start : start + length] are visual tokens `offset` to `offset + length` of image number `image`."""

    start: int
    length: int
    image: int
    offset: int


class Mark(NamedTuple):
    """From ids[place] on cross-attention looks at visual tokens `start` to `start + length` of image number `image`."""

    place: int
    image: int
    start: int
    length: int


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
    seen: tuple[Mark, ...] = ()
    """What is looked at by cross-attention, from where on."""
    weight: float = 1.0
    """What each of its supervised tokens counts in the loss, beside those of other conversations."""

    @property
    def shown(self) -> int:
        """How many images it takes, counted from the first, so that everything that it refers to is there."""
        return 1 + max((*(span.image for span in self.spans), *(mark.image for mark in self.seen)), default=-1)

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
            tuple(mark for mark in self.seen if mark.place < end),
            self.weight,
        )
