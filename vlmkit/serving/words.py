"""From tokens to the text of an answer while it grows: what may be sent already, and where it stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer gives for the first bytes of a letter whose last ones are not there yet."""


class Words:
    """The text of tokens that come one by one.

    stops: texts at which the answer ends; none of them is part of it. The pieces that `sendable` gives make up the text: what may yet
    become a stop, or another letter, is kept back until it is known.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, tuple(stops)
        self._tokens: list[int] = []
        self._sent = ""
        self.text = ""
        self.stopped = False

    @property
    def has_stops(self) -> bool:
        return bool(self._stops)

    def add(self, tokens: Sequence[int]) -> bool:
        """Whether a stop was met, and nothing more belongs to the answer."""
        if not self.stopped and tokens:
            self._tokens += tokens
            self.text = self._decode(self._tokens)
            if places := [place for stop in self._stops if (place := self.text.find(stop)) >= 0]:
                self.text, self.stopped = self.text[: min(places)], True
        return self.stopped

    def sendable(self, *, last: bool = False) -> str:
        """What can be sent beyond what was given before; with `last` all that is left."""
        text = self.text
        if not (last or self.stopped):
            text = text.rstrip(BROKEN)
            text = text[: len(text) - max((_begun(text, stop) for stop in self._stops), default=0)]
            if not text.startswith(self._sent):  # a tokenizer that takes back what it said: wait for more
                return ""
        new = text[len(self._sent) :]
        self._sent += new
        return new

    def restart(self) -> None:
        """The same tokens will come again, from the first one on. What was sent stays sent."""
        self._tokens, self.text, self.stopped = [], "", False


def _begun(text: str, stop: str) -> int:
    """How many letters at the end of a text begin this stop."""
    return next((length for length in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:length])), 0)
