"""The special tokens of a tokenizer, and a template's text cut at them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping


class Specials(Mapping[str, int]):
    """Spelling of every special token -> its id."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = dict(ids)
        longest_first = sorted(filter(None, ids), key=len, reverse=True)
        self._any = re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)")
        self._split: dict[str, tuple[str | int, ...]] = {}

    def split(self, text: str) -> tuple[str | int, ...]:
        """'<a>x<b>' -> (7, 'x', 8): plain text, and ids where special tokens are spelled; of spellings that overlap the longest wins.

        For a template's text: every answer is kept, because the same few texts stand in every conversation.
        """
        found = self._split.get(text)
        if found is None:
            pieces = filter(None, self._any.split(text))
            found = self._split[text] = tuple(self._ids.get(piece, piece) for piece in pieces)
        return found

    def __getitem__(self, spelling: str) -> int:
        return self._ids[spelling]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)
