"""Tables, lines and bars by rich: its own codes reach the terminal, words do so in letters, and no word is taken for markup."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.file_proxy import FileProxy
from rich.progress import Progress, Task, TextColumn
from rich.segment import Segment
from rich.text import Text

from vlmkit.terminal import Guarded, beneath, printable


class Screen(Console):
    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    @property
    def file(self) -> IO[str]:
        return beneath(super().file)  # type: ignore[no-any-return]

    @file.setter
    def file(self, file: IO[str]) -> None:
        self._file = file

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class Words(TextColumn):
    """Beside a bar."""

    def __init__(self, text: str) -> None:
        super().__init__(text, markup=False)

    def render(self, task: Task) -> Text:
        return Text(printable(self.text_format.format(task=task)), style=self.style, justify=self.justify)


class Bars(Progress):
    """While a bar moves on a terminal, rich prints what others write above it, and would take their codes for its own."""

    def start(self) -> None:
        super().start()
        for name in ("stdout", "stderr"):
            if isinstance(stream := getattr(sys, name), FileProxy):
                setattr(sys, name, Guarded(stream))  # type: ignore[arg-type]
