"""What is printed: a model, a file's name or a data set may hold anything, also what a terminal takes as commands."""

from __future__ import annotations

import re
import sys
from typing import Any, TextIO

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""Control characters but line breaks and tabs, marks that turn the direction of writing, and halves of surrogates."""


def printable(text: str) -> str:
    """The text with what a terminal would act on written as escapes: a colour becomes \\x1b[31m, in letters."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode-escape").decode("ascii"), text)


def say(*words: Any, file: TextIO | None = None, flush: bool = False) -> None:
    """As print, with every word printable."""
    print(*(printable(str(word)) for word in words), file=sys.stdout if file is None else file, flush=flush)


def streamer(tokenizer: Any) -> Any:
    """Prints an answer while it is generated."""
    from transformers import TextStreamer

    class Printable(TextStreamer):  # type: ignore[misc]
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            super().on_finalized_text(printable(text), stream_end)

    return Printable(tokenizer, skip_prompt=True, skip_special_tokens=True)
