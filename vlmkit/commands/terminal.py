"""What commands say, and answers while they are generated."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from vlmkit.terminal import printable


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
