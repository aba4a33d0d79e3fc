"""The special tokens of a tokenizer, and a template's text cut at them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

Pieces = tuple[str | int, ...]


class Specials(Mapping[str, int]):
    """Spelling of every special token -> its id."""

    def __init__(self, ids: Mapping[str, int], *, trim_before: Iterable[int] = (), trim_behind: Iterable[int] = ()) -> None:
        """trim_before, trim_behind: ids of those beside which blanks go (Phi-3's)."""
        self._ids = dict(ids)
        self.trim_before, self.trim_behind = frozenset(trim_before), frozenset(trim_behind)
        self.trims = bool(self.trim_before or self.trim_behind)
        longest_first = sorted(filter(None, ids), key=len, reverse=True)
        self._any = re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)")
        self._split: dict[str, Pieces] = {}
        self._split_behind_first: dict[str, tuple[Pieces, Pieces]] = {}

    def split(self, text: str) -> Pieces:
        """'<a>x<b>' -> (7, 'x', 8): plain text, and ids where special tokens are spelled; of spellings that overlap the longest wins.

        For a template's text: every answer is kept, because the same few texts stand in every conversation.
        """
        found = self._split.get(text)
        if found is None:
            pieces = filter(None, self._any.split(text))
            found = self._split[text] = tuple(self._ids.get(piece, piece) for piece in pieces)
        return found

    def split_behind_first(self, text: str) -> tuple[Pieces, Pieces]:
        """The same in two: up to the first special token, none where there is none, and what follows."""
        found = self._split_behind_first.get(text)
        if found is None:
            pieces = self.split(text)
            end = next((place + 1 for place, piece in enumerate(pieces) if isinstance(piece, int)), 0)
            found = self._split_behind_first[text] = pieces[:end], pieces[end:]
        return found

    def __getitem__(self, spelling: str) -> int:
        return self._ids[spelling]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)
