"""Marks in the place of words: what of a rendered conversation is the template's, and what a user's.

A chat template is a program; what it makes of a conversation is one string, in which a word that somebody typed looks like the
template's own. So every text goes in as a mark that nobody typed, and the string that comes out is cut at the marks. Blanks around a text
stay outside of its mark, because templates trim them. Whether the template treated marks as it treats the words is checked: with the
words put back it has to give what it gives for the words themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from vlmkit.layout.laid_out import LayoutError, Turn

Messages = list[dict[str, Any]]
Render = Callable[[Messages], str]
"""What a template makes of messages."""

OPEN, CLOSE = "\uf8f0", "\uf8f1"
"""Private-use characters around the number of a mark; the first is doubled until no text holds it."""


class Words(NamedTuple):
    """What a mark stands for: a text of the conversation, or a piece of one."""

    turn: int
    text: str
    before: str
    """What of the same text stands between the mark before it, or its beginning, and this one."""
    goes_on: bool
    """Whether there is a mark before it."""


class Page(Protocol):
    """Where text is put down."""

    def trusted(self, text: str) -> None: ...

    def plain(self, text: str) -> None: ...


class Marks:
    """The marks of one conversation. `visible` are strings that the template looks for in texts: they stand between marks, not under
    them."""

    def __init__(self, turns: Sequence[Turn], visible: Iterable[str] = ()) -> None:
        everything = "".join(part for turn in turns for part in turn.content if isinstance(part, str))
        self.opening = OPEN
        while self.opening in everything:
            self.opening += OPEN
        self.texts: list[Words] = []
        self._cut = re.compile(f"({'|'.join(map(re.escape, sorted(visible, key=len, reverse=True))) or '(?!)'})")
        self._mark = re.compile(f"{self.opening}([0-9]+){CLOSE}")

    def text(self, turn: int, text: str) -> str:
        """A text of this turn with marks in its place."""
        if not text.strip():
            return text
        marked, before, pieces = "", "", self._cut.split(text)
        for number in range(0, len(pieces), 2):
            piece = pieces[number]
            inner = piece.strip()
            lead = piece[: len(piece) - len(piece.lstrip())] if inner else ""
            marked += f"{lead}{self.opening}{len(self.texts)}{CLOSE}"
            self.texts.append(Words(turn, inner, before + lead, number > 0))
            before = piece[len(lead) + len(inner) :] + "".join(pieces[number + 1 : number + 2])
            marked += before
        return marked

    def words_back(self, rendered: str) -> str:
        """The string with the words in place of their marks."""
        return self._mark.sub(lambda mark: self.texts[int(mark[1])].text, rendered)

    def find(self, rendered: str, start: int) -> re.Match[str] | None:
        """The first mark from `start` on."""
        return self._mark.search(rendered, start)

    def places(self, rendered: str, turn: int) -> list[tuple[int, int]]:
        """Where the marks of a turn's texts begin, with the blanks that a text begins with, and where they end."""
        found = []
        for mark in self._mark.finditer(rendered):
            words, start = self.texts[int(mark[1])], mark.start()
            if words.turn == turn:
                found.append((start - len(words.before) * rendered[:start].endswith(words.before), mark.end()))
        return found

    def place(self, rendered: str, page: Page) -> None:
        """Put down a stretch of the rendered string. What stands between two marks of one text as it does in the text is the user's."""
        before, *rest = self._mark.split(rendered)
        page.trusted(before)
        numbers, between = [int(number) for number in rest[::2]], rest[1::2]
        for place, (number, after) in enumerate(zip(numbers, between, strict=True)):
            page.plain(self.texts[number].text)
            own = numbers[place + 1 : place + 2] == [number + 1] and self.texts[number + 1][2:] == (after, True)
            (page.plain if own else page.trusted)(after)


class Shown(NamedTuple):
    """What stands for each image and video of a conversation: "image" or "video" where items are listed, a string where words are one."""

    kinds: Sequence[str]
    texts: Sequence[str]


def messages_of(turns: Sequence[Turn], shown: Shown, text: Callable[[int, str], str]) -> Messages:
    """Turns as messages of the ecosystem's chat format. text: (number of a turn, a text of it) -> what stands for it."""
    messages: Messages = []
    for number, turn in enumerate(turns):
        content: Any
        if turn.as_string:
            content = "".join(text(number, part) if isinstance(part, str) else shown.texts[part] for part in turn.content)
        else:
            content = [
                text_item(text(number, part))
                if isinstance(part, str)
                else {"type": shown.kinds[part], shown.kinds[part]: shown.kinds[part]}
                for part in turn.content
            ]
        messages.append({"role": turn.role, "content": content})
    return messages


def text_item(text: str) -> dict[str, str]:
    """Pixtral's published template reads words from "content"."""
    return {"type": "text", "text": text, "content": text}


def render_marked(render: Render, turns: Sequence[Turn], shown: Shown, visible: Iterable[str]) -> tuple[Marks, Messages, str]:
    """The marks of a conversation, its messages with them, and what the template makes of these. Raises LayoutError where it makes
    something else of marks than of words, even where what it looks for in texts is `visible` to it."""
    real = render(messages_of(turns, shown, lambda _, words: words))
    words = "\0".join(part for turn in turns for part in turn.content if isinstance(part, str))
    looked_for = [word for word in visible if word in words]
    for seen in ((), [word for word in looked_for if word.strip()], looked_for):
        marks = Marks(turns, seen)
        messages = messages_of(turns, shown, marks.text)
        rendered = render(messages)
        if marks.words_back(rendered) == real:
            return marks, messages, rendered
    raise LayoutError(
        "the chat template rewrites what the conversation says, so that its own words cannot be told from a user's; it makes "
        f"{_short(real)} of it"
    )


def _short(text: str) -> str:
    return repr(text) if len(text) <= 200 else repr(text[:197]) + "..."
