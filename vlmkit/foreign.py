"""What an error of another library says, for a sentence of vlmkit's own."""

from __future__ import annotations


def words_of(error: BaseException) -> str:
    """In one line, without the name of its class, which says something to whoever writes code with that library alone. Of a KeyError the
    words are a name."""
    told = next(iter(str(error).strip().splitlines()), "") or "a library gives it up without a word"
    return (f"{told} is missing" if isinstance(error, KeyError) else told)[:300]
