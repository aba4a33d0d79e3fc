"""The elements of a JSON document of any size, one at a time.

An annotation file is one array or object, at the top or under a key, and may be gigabytes. Held in memory are one element and
a buffer of a megabyte. Each element is read by the standard library's own decoder, which limits how deeply values nest; an
incremental parser that does not was driven out of memory by a file of brackets. What is larger than the buffer is counted first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from vlmkit.data.reading.large_json import BLANKS, CHUNK, LONGEST, LargeValue, TooLarge
from vlmkit.data.sample import DataError

_FARTHEST = 2 * LONGEST
"""Characters after which an element without an end is a broken file."""
_LONGEST_NUMBER = 1 << 20
_BLANKS = re.compile(r"[ \t\n\r]*")


class BrokenJson(DataError):  # noqa: N818 (a state of the file)
    """A document that ends early, or is no JSON from some place on."""


def elements(file: Path, key: str | None = None) -> Iterator[tuple[str, Any]]:
    """(name, value) of each element of the array or object at the top of a document, or under `key` of the top object.

    A name is the key of a member or the number of an element, from 0. Bytes that are no UTF-8 become lone surrogates, so that
    they spoil one text and not the file. A value over the bound of `large_json` is a TooLarge in its place. Raises BrokenJson at
    the place where nothing more can be read; elements before it were yielded.
    """
    with file.open(encoding="utf-8", errors="surrogateescape") as stream:
        document = _Document(stream)
        if key is None:
            yield from document.container()
        else:
            yield from document.member(key)
        document.end()


def _blanks(text: str, at: int) -> int:
    """Where they end."""
    found = _BLANKS.match(text, at)
    assert found is not None
    return found.end()


class _Document:
    """A place in a document. Whatever fails for want of text is tried again with more of it."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.text = stream.read(CHUNK).removeprefix("\ufeff")
        self.at = 0
        self.before = 0
        self.decode = json.JSONDecoder().raw_decode

    def container(self) -> Iterator[tuple[str, Any]]:
        """The elements of the array or object that begins here."""
        if self.expect("[{") == "{":
            for name in self.names():
                yield name, self.value(",}")
            return
        for number in self.until("]"):
            yield str(number), self.value(",]")

    def member(self, key: str) -> Iterator[tuple[str, Any]]:
        """The elements under a key of the object that begins here. What follows is read too: an array that a damaged byte
        closes early would be taken for whole."""
        self.expect("{")
        found = False
        for name in self.names():
            if name == key and not found:
                found = True
                yield from self.container()
            else:
                self.skip()
        if not found:
            raise BrokenJson(f"it has no {key!r}")

    def end(self) -> None:
        """Nothing but space is left."""
        while not self.text[self.at :].strip(BLANKS):
            self.at = len(self.text)
            if not self.more():
                return
        raise self.broken("the document has ended")

    def names(self) -> Iterator[str]:
        """Keys of the object whose brace was read; the value of each has to be read before the next is asked for."""
        for _ in self.until("}"):
            name = self.value(":")
            if not isinstance(name, str):
                raise self.broken("a key is no text")
            self.expect(":")
            yield name

    def until(self, closing: str) -> Iterator[int]:
        """Counts elements, standing before each, until the closing bracket was read."""
        number = 0
        while True:
            if self.next() == closing:
                self.at += 1
                return
            if number:
                self.expect(",")
            yield number
            number += 1

    def value(self, following: str) -> Any:
        """The value here, which one of the characters `following` has to come after: a number may go on in the next chunk."""
        while True:
            first = self.next()
            try:
                value, end = self.decode(self.text, self.at)
                end = _blanks(self.text, end)
                if end < len(self.text) and self.text[end] in following:
                    self.at = end
                    return value
                problem = f"expected one of {' '.join(following)}"
            except (ValueError, RecursionError) as error:
                problem = _told(error)
            held = len(self.text) - self.at
            if first in '[{"' and held >= CHUNK:
                return self.large(following)
            if held > _LONGEST_NUMBER or not self.more():
                raise self.broken(problem)

    def large(self, following: str) -> Any:
        """The value here, which does not fit into the buffer."""
        start = self.before + self.at
        value = LargeValue()
        self.through(value, _FARTHEST)
        if self.next() not in following:
            raise self.broken(f"expected one of {' '.join(following)}")
        try:
            return value.made()
        except TooLarge as error:
            return error
        except (ValueError, RecursionError) as error:
            raise self.broken(_told(error), start) from None

    def skip(self) -> None:
        """Over the value here."""
        if self.next() in "[{":
            self.through(LargeValue(kept=False), None)
        else:
            self.value(",}")

    def through(self, value: LargeValue, farthest: int | None) -> None:
        """Read to the end of a value."""
        start = self.before + self.at
        while (end := value.end(self.text[self.at :])) is None:
            self.before += len(self.text)
            self.text, self.at = self.stream.read(CHUNK), 0
            if not self.text:
                raise self.broken("the file ends early")
            if farthest is not None and self.before - start > farthest:
                raise self.broken("a value does not end", start)
        self.at += end

    def expect(self, characters: str) -> str:
        """The next character that is no space, which has to be one of these."""
        found = self.next()
        if found not in characters:
            raise self.broken(f"expected one of {' '.join(characters)}")
        self.at += 1
        return found

    def next(self) -> str:
        while True:
            self.at = _blanks(self.text, self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                raise self.broken("the file ends early")

    def more(self) -> bool:
        """Read on, as much again as is held, so that a long element is not tried too often; whether there was anything."""
        rest = self.text[self.at :]
        read = self.stream.read(max(CHUNK, len(rest)))
        self.before += self.at
        self.text, self.at = rest + read, 0
        return bool(read)

    def broken(self, problem: str, place: int | None = None) -> BrokenJson:
        return BrokenJson(f"no JSON from character {self.before + self.at if place is None else place} on ({problem})")


def _told(error: Exception) -> str:
    return getattr(error, "msg", None) or type(error).__name__
