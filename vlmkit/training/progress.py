"""Loss, rates and remaining time: a live bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn

from vlmkit.screen import Bars, Words

_KEEP = (
    "loss",
    "left",
    "tokens_per_second",
    "mfu",
    "least_expert",
    "images_per_second",
    "waiting",
    "memory",
    "padding",
    "samples_per_second",
)
"""The most important first: where a terminal is narrow, the last ones are left out."""
_ORDER = (
    "loss",
    "samples_per_second",
    "tokens_per_second",
    "images_per_second",
    "mfu",
    "least_expert",
    "memory",
    "padding",
    "waiting",
    "left",
)
"""As they are read, from left to right."""
_STEPS_BEFORE_LEFT, _SECONDS_BEFORE_LEFT = 3, 2.0
"""After the first step, which loads and compiles: what it took says nothing about the others."""
_RECENT = 60
"""Moments that are remembered, a second apart or more: the remaining time follows from the rate between the oldest and now."""


class StageProgress:
    """A context manager around the steps of one stage. On a terminal of 80 columns, and as a plain line:

    align      ━━━━━━━━━━ 120/400 loss 1.234  24.1k tokens/s  41% MFU  0:38 left
    align      120/400  loss 1.234  118 samples/s  24.1k tokens/s  97 images/s  41% MFU  61.2 GB  4% padding  1% waiting  0:38 left
    """

    def __init__(
        self,
        console: Console,
        name: str,
        *,
        steps: int,
        first: int,
        samples: int,
        seconds_between_lines: float = 10.0,
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        """samples: of one step, for the rate where a step is told without a record. seconds: a clock."""
        self.console, self.name, self.steps, self.samples = console, name, steps, samples
        self._between = seconds_between_lines
        self._first, self._seconds = first, seconds
        self._recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)
        self._loss: float | None = None
        self._bar: Bars | None = None

    def __enter__(self) -> Self:
        self._begun = self._last_line = self._seconds()
        if self.console.is_terminal:
            columns = (
                Words("{task.description:<10}"),
                BarColumn(bar_width=self._bar_width),
                MofNCompleteColumn(),
                Words("{task.fields[text]}"),
            )
            self._bar = Bars(*columns, console=self.console, refresh_per_second=4)
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=self.steps, completed=self._first, text="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, loss: float, record: Mapping[str, float] | None = None) -> None:
        """`step` updates are done, the last one with this loss; `record` as `Meters.recent` gives it."""
        if self._loss is None or not math.isfinite(self._loss):
            self._loss = loss
        elif math.isfinite(loss):  # a skipped update would be the mean of all that follow
            self._loss = 0.95 * self._loss + 0.05 * loss
        now = self._seconds()
        if not self._recent or now - self._recent[-1][1] >= 1:
            self._recent.append((step, now))
        if self._bar is not None:
            # A space stands between columns, and none behind the last.
            room = self.console.width - max(10, len(self.name)) - self._bar_width - (2 * len(str(self.steps)) + 1) - 3
            self._bar.update(self._task, completed=step, text=self._text(step, now, record, room))
        elif now - self._last_line >= self._between or step == self.steps:
            self._last_line = now
            self.console.print(
                f"{self.name:<10} {step}/{self.steps}  {self._text(step, now, record)}", highlight=False, markup=False, soft_wrap=True
            )

    @property
    def _bar_width(self) -> int:
        return 10 if self.console.width < 120 else 20

    def _text(self, step: int, now: float, record: Mapping[str, float] | None, room: int | None = None) -> str:
        each = (now - self._begun) / max(1, step - self._first)
        words = {"loss": f"loss {self._loss:.3f}"}
        if (left := self._left(step, now)) is not None:
            words["left"] = f"{clock(left)} left"
        record = {"samples_per_second": self.samples / each} if record is None else record
        words |= {name: in_words(name, record[name]) for name in _ORDER if name in record}
        kept: list[str] = []
        for name in (name for name in _KEEP if name in words):
            if room is not None and kept and len("  ".join(words[other] for other in (*kept, name))) > room:
                break
            kept.append(name)
        return "  ".join(words[name] for name in _ORDER if name in kept)

    def _left(self, step: int, now: float) -> float | None:
        """Seconds to go at the recent rate, None before there is one."""
        since, then = self._recent[0]
        if step == self.steps:
            return 0.0
        if step - since < _STEPS_BEFORE_LEFT or now - then < _SECONDS_BEFORE_LEFT:
            return None
        return (now - then) / (step - since) * (self.steps - step)


def in_words(name: str, value: float) -> str:
    """A number of a record for the eye: in_words("tokens_per_second", 24_100) is '24.1k tokens/s'."""
    if name.endswith("_per_second"):
        return f"{short(value)} {name.removesuffix('_per_second')}/s"
    if name == "least_expert":
        return f"least expert {100 * value:.0f}%"
    if name == "memory":
        return f"{value / 1e9:.1f} GB"
    return f"{100 * value:.0f}% {'MFU' if name == 'mfu' else name}"


def short(value: float) -> str:
    """At most three digits: short(0.523) is '0.52', short(118.2) is '118', short(24_100) is '24.1k'."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{round(value, 2):.3g}"


def clock(seconds: float) -> str:
    """clock(75) is '1:15', clock(3675) is '1:01:15'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
