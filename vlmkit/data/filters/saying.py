"""Samples in whose conversations listed words are said are left out: slurs, boilerplate, a name."""

from __future__ import annotations

import re

from vlmkit.conversation import read_conversation
from vlmkit.data.filters import Filter, filters
from vlmkit.data.filters.listed import lines
from vlmkit.data.sample import DataError, Sample


@filters.register("saying")
def saying(*, file: str, reason: str = "it says a listed word") -> Filter:
    """file: a word or several a line, which stand alone in a text, in any case. reason: to count by. Raises DataError."""
    listed = lines(file)
    if not listed:
        raise DataError(f"{file} names nothing; expected a word a line")
    # \b stands only beside a letter: a listed word may end with a sign.
    words = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in listed), re.IGNORECASE)

    def keep(sample: Sample) -> str | None:
        turns = (turn for conversation in sample.conversations for turn in read_conversation(conversation)[0])
        said = (part for turn in turns for part in turn.content if isinstance(part, str))
        return reason if any(words.search(part) for part in said) else None

    return keep
