"""Bracketed images on lines of their own: a line break before an image that does not begin its message, and one after an image
that does not end it (Janus-Pro, arXiv:2501.17811, as transformers asks it)."""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.layout import layouts
from vlmkit.layout.bracketed import Bracketed


@layouts.register("bracketed_lines")
@dataclass(frozen=True, kw_only=True)
class BracketedLines(Bracketed):
    """Two images that follow each other have an empty line between them."""

    @property
    def written(self) -> tuple[str, ...]:
        return (self.placeholder,)

    def around_image(self, first: bool, last: bool) -> tuple[str, str]:
        return "" if first else "\n", self.after_image if last else f"{self.after_image}\n"
