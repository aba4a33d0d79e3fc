"""What a terminal may be given: a model, a file's name or a data set may hold anything, also what it takes as commands.

`guarded` stands around everything that a command does. Whoever writes in there, be it a warning, a log, a traceback or argparse, writes in
letters. What draws with codes of its own (`vlmkit.screen`) writes to the stream beneath, and sees to its words itself.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO, cast

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters but line breaks and tabs, marks that turn the direction of writing, and halves of surrogates."""

_MOVES = re.compile(r"\n*(\x1b\[A)*")


def printable(text: str) -> str:
    """The text with what a terminal would act on written as escapes: a colour becomes \\x1b[31m, in letters."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode-escape").decode("ascii"), text)


class Guarded:
    """A stream that takes letters alone. It says that it is no terminal, so that libraries neither colour nor draw."""

    def __init__(self, stream: TextIO) -> None:
        self.beneath = stream

    def write(self, text: str) -> int:
        self.beneath.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.beneath, name)


def beneath(stream: Any) -> Any:
    """The stream itself, below whatever stands on it."""
    while (below := getattr(stream, "beneath", None) or getattr(stream, "rich_proxied_file", None)) is not None:
        stream = below
    return stream


def is_terminal(stream: Any) -> bool:
    """Whether somebody looks at it, whatever stands on it; None, where a process has no such stream, is none."""
    return stream is not None and bool(beneath(stream).isatty())


def guard() -> None:
    """From here to its end this process writes letters: the start of a worker, or of a script."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Guarded):
            setattr(sys, name, Guarded(stream))


@contextmanager
def guarded() -> Iterator[None]:
    """In here, stdout and stderr take letters alone. An error that leaves it has its traceback shown so too, where nobody catches it."""
    before, handlers, colours = (sys.stdout, sys.stderr), _handlers(), os.environ.get("PYTHON_COLORS")
    os.environ["PYTHON_COLORS"] = "0"  # argparse asks the file descriptor whether it may colour
    guard()
    for handler, stream in handlers:
        handler.setStream(sys.stdout if stream is before[0] else sys.stderr)
    try:
        with _bars_of_others():
            yield
    except Exception:
        sys.excepthook = _traceback
        raise
    finally:
        for handler, stream in handlers:
            handler.setStream(stream)
        sys.stdout, sys.stderr = before
        if colours is None:
            del os.environ["PYTHON_COLORS"]
        else:
            os.environ["PYTHON_COLORS"] = colours


def _handlers() -> list[tuple[logging.StreamHandler[TextIO], TextIO]]:
    """Of logs that were set up before: they hold the streams as they were."""
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    found = [
        handler
        for logger in loggers
        for handler in getattr(logger, "handlers", ())
        if isinstance(handler, logging.StreamHandler) and "stream" in vars(handler)
    ]
    return [(handler, handler.stream) for handler in found if handler.stream is sys.stdout or handler.stream is sys.stderr]


def _traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    guard()
    traceback.print_exception(kind, error, trace)


class _Bars(Guarded):
    """For tqdm, whose own codes are a return before a bar and steps up between bars."""

    def write(self, text: str) -> int:
        own = text if _MOVES.fullmatch(text) else "\r" * text.startswith("\r")
        self.beneath.write(own + printable(text.removeprefix(own)))
        return len(text)

    def isatty(self) -> bool:
        return is_terminal(self.beneath)

    def __eq__(self, other: object) -> bool:
        return self.beneath is beneath(other)  # so that tqdm finds that it writes to the terminal, and takes its width

    __hash__ = None  # type: ignore[assignment]


@contextmanager
def _bars_of_others() -> Iterator[None]:
    """Downloads and large files show tqdm's bars on a terminal; in here their words are letters."""
    if not is_terminal(sys.stderr):
        yield
        return
    from tqdm import std

    wrapped = std.DisableOnWriteError
    std.DisableOnWriteError = lambda file, tqdm_instance: wrapped(_Bars(cast(TextIO, beneath(file))), tqdm_instance)
    try:
        yield
    finally:
        std.DisableOnWriteError = wrapped
