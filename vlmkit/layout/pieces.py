"""What a conversation is laid out from: trusted text, visual tokens, learned embeddings, and what an image is to a layout."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from vlmkit.features import Grid
from vlmkit.preprocess.geometry import ImagePlan


@dataclass(frozen=True, slots=True)
class Trusted:
    """Text of a template: special tokens in it are meant."""

    text: str


@dataclass(frozen=True, slots=True)
class Visual:
    """Visual tokens `start` to `start + length` of an image, in the order in which the connector returns them."""

    start: int
    length: int
    placeholder: str | None = None
    """The reserved token that fills their places, where it is not the layout's."""


@dataclass(frozen=True, slots=True)
class Learned:
    """One learned embedding of the model, by its name in `TokenLayout.learned`."""

    name: str


@dataclass(frozen=True, slots=True)
class Boundary:
    """A special token that stands once where two of it meet."""

    text: str
    spaced: bool = True
    """Whether a word right behind it is set off by a space."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The mark of visual tokens that are looked at and not read: they take no place, and words from the mark on may see them through
    cross-attention, until the next mark."""

    text: str
    """The template's text that stands at the mark."""
    start: int = 0
    """The first of the image's visual tokens that are seen."""
    length: int | None = None
    """How many are; None: all of them. 0: from here on words look at nothing."""


Piece = Trusted | Visual | Learned | Boundary | Seen


@dataclass(frozen=True)
class ImageTokens:
    """One image as a layout sees it: its plan, and the grid of each view after the connector."""

    plan: ImagePlan
    grids: tuple[Grid, ...]
    kept: bytes | None = None
    """One byte a visual token, 0 where it is left out of the sequence; None: all are kept."""
    seconds: tuple[float, ...] = ()
    """Of a film, when each of its frames is seen; empty for a picture."""

    @property
    def is_film(self) -> bool:
        return bool(self.seconds)

    @functools.cached_property
    def count(self) -> int:
        """Visual tokens as the connector returns them, those that a layout leaves out included."""
        return sum(grid.tokens for grid in self.grids)
