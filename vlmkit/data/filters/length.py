"""Samples whose answers have too few words or too many are left out; words are what blanks separate."""

from __future__ import annotations

from vlmkit.conversation import read_conversation
from vlmkit.data.filters import Filter, filters
from vlmkit.data.sample import DataError, Sample


@filters.register("length")
def length(*, least: int = 0, most: int = 1_000_000) -> Filter:
    """least, most: words of all of the assistant's turns of a conversation together; one conversation outside costs the sample. Raises
    DataError."""
    if not 0 <= least <= most:
        raise DataError(f"least is {least} and most is {most}, expected 0 <= least <= most words")

    def keep(sample: Sample) -> str | None:
        for conversation in sample.conversations:
            answers = (turn for turn in read_conversation(conversation)[0] if turn.role == "assistant")
            words = sum(len(part.split()) for turn in answers for part in turn.content if isinstance(part, str))
            if not least <= words <= most:
                return f"it has fewer than {least} words" if words < least else f"it has more than {most} words"
        return None

    return keep
