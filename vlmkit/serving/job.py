"""A question on its way: what is asked, and whom to tell what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vlmkit.serving.words import Words

if TYPE_CHECKING:
    from vlmkit.batch.sample import PreparedSample
    from vlmkit.serving.drawing import Drawing

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Said:
    """A further piece of the answer; with `finish` it is the last one."""

    text: str
    finish: Finish | None = None


class Job:
    """One question. `tell` is called in the thread that generates, with what was said or with what went wrong."""

    def __init__(
        self,
        sample: PreparedSample,
        drawing: Drawing,
        max_tokens: int,
        words: Words,
        tell: Callable[[Said | Exception], None],
        streams: bool,
    ) -> None:
        self.sample: PreparedSample | None = sample
        self.prompt_tokens = len(sample.layouts[0].ids)
        self.drawing, self.max_tokens, self.words, self.tell, self.streams = drawing, max_tokens, words, tell, streams
        self.answer_tokens = 0
        self.cancelled = False
        """Set by whoever does not want the answer any more; generation ends before the next token."""
        self.over = False
        self._behind: list[int] = []
        self._eager = streams or words.has_stops

    def restart(self) -> None:
        """The batch broke: the answer begins once more, and what was told of it is not told again."""
        self.answer_tokens, self._behind = 0, []
        self.words.restart()

    def take(self, token: int, ends: bool) -> bool:
        """The next token, which `ends` the turn or is a part of it; whether the answer is over."""
        self.answer_tokens += 1
        if not ends:
            self._behind.append(token)
        finish: Finish | None = "stop" if ends else "length" if self.answer_tokens >= self.max_tokens else None
        if self._eager or finish:
            tokens, self._behind = self._behind, []
            if self.words.add(tokens):
                finish = "stop"
        if finish:
            self.over, self.sample = True, None
            self.tell(Said(self.words.sendable(last=True), finish))
        elif self.streams and (piece := self.words.sendable()):
            self.tell(Said(piece))
        return finish is not None

    def fail(self, error: Exception) -> None:
        self.over, self.sample = True, None
        self.tell(error)
