"""What every data set becomes: samples, and what is said in place of a sample that cannot be used.

Nothing is decoded here: an image is a file or the bytes of one until a processor opens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmkit.conversation import Conversation

LONGEST_TEXT = 200_000
"""Characters of one conversation, about 50,000 tokens: more is taken for an accident."""
LONGEST_ID = 1000

Image = Path | bytes
"""An encoded image: a file, or the bytes of one (the member of a tar, the cell of a table)."""


class DataError(ValueError):
    """Data that cannot be used: the file, what is wrong with it, the way out."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Images, and one or several conversations about them that do not see each other.

    A conversation is a list of messages in the chat format. Its image items are {"type": "image", "image": k} with k the
    number of the image in `images`; every conversation shows all of them, in order.
    """

    images: tuple[Image, ...]
    conversations: tuple[Conversation, ...]
    source: str
    """Name of the data set, for weights, counts and reports."""
    id: str
    """Unique in its source."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """What a reader yields in place of a sample that cannot be used."""

    source: str
    id: str
    reason: str
    """A short stable phrase to count by: 'image is missing'."""
    detail: str
    """One sentence for the report, with file and line or key."""
    meant: bool = False
    """Whether a filter left the sample out, as it was asked to: it is counted, and is no fault of the data."""
