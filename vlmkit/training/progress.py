"""Rate, loss and remaining time: a live bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn


class StageProgress:
    """A context manager around the steps of one stage.

    align      ━━━━━━━━━━━━━━━━━━ 120/400  30%  loss 1.234  118 samples/s  0:38 left
    """

    def __init__(self, console: Console, name: str, *, steps: int, first: int, samples: int, seconds_between_lines: float = 10.0) -> None:
        self.console, self.name, self.steps, self.samples = console, name, steps, samples
        self._between = seconds_between_lines
        self._first = first
        self._loss: float | None = None
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        self._begun = self._last_line = time.perf_counter()
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description:<10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self._bar = Progress(*columns, console=self.console, refresh_per_second=4)
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=self.steps, completed=self._first, text="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, loss: float) -> None:
        """`step` updates are done, the last one with this loss."""
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        now = time.perf_counter()
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=self._text(step, now))
        elif now - self._last_line >= self._between or step == self.steps:
            self._last_line = now
            self.console.print(f"{self.name:<10} {step}/{self.steps}  {self._text(step, now)}", highlight=False, soft_wrap=True)

    def _text(self, step: int, now: float) -> str:
        each = (now - self._begun) / max(1, step - self._first)
        return f"loss {self._loss:.3f}  {self.samples / each:.0f} samples/s  {clock(each * (self.steps - step))} left"


def clock(seconds: float) -> str:
    """clock(75) is '1:15', clock(3675) is '1:01:15'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
