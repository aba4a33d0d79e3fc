"""What a comparison is at: trials at work with their steps, time taken, time left. Live bars on a terminal, else a line now and then."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID

from vlmkit.comparing.study import Study
from vlmkit.comparing.trial import Trial
from vlmkit.screen import Bars, Words
from vlmkit.training.progress import clock

_TAIL = 65_536
"""Bytes at the end of a log within which its last whole record stands."""
_STEPS_BEFORE_LEFT = 3
"""Before them, what loading takes says nothing about the steps that follow."""


def steps_of(trial: Trial) -> int:
    """All steps of a trial."""
    return sum(stage.steps for stage in trial.stages)


def steps_done(trial: Trial, directory: Path) -> int:
    """How many of them stand in the log of its directory, which is written in pieces and so may be some steps behind."""
    try:
        with (directory / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            lines = file.read().rpartition(b"\n")[0].splitlines()
        record = json.loads(lines[-1]) if lines else {}
    except (OSError, ValueError):
        return 0
    before = 0
    for stage in trial.stages:
        if stage.name == record.get("stage"):
            return before + int(record["step"]) + 1
        before += stage.steps
    return 0


class Pace:
    """How long a step takes, of warm-ups and of other trials, with all that stands around steps: loading, questions."""

    def __init__(self, made: Iterable[tuple[Trial, int, float]]) -> None:
        """made: trials with the steps that they made, and the seconds that these took."""
        steps, seconds = {True: 0, False: 0}, {True: 0.0, False: 0.0}
        for trial, count, took in made:
            steps[trial.warms] += count
            seconds[trial.warms] += took
        self._step = {kind: seconds[kind] / count for kind, count in steps.items() if count >= _STEPS_BEFORE_LEFT}

    def left(self, to_go: Sequence[tuple[Trial, int]], jobs: int) -> float | None:
        """Seconds for trials with the steps that they have before them, so many trials at a time; None before anything is known. A kind of
        trial of which nothing is known takes as long a step as the other one."""
        if not to_go or not self._step:
            return None if to_go else 0.0
        seconds = sum(steps * self._step.get(trial.warms, max(self._step.values())) for trial, steps in to_go)
        return seconds / min(jobs, len(to_go))


@dataclass
class _Work:
    trial: Trial
    begun: float
    first: int
    """Steps that stood in its log before."""
    steps: int
    row: TaskID | None = None


class StudyProgress:
    """A context manager around the trials of a comparison. On a terminal, and as a plain line:

    trials                ━━━━━━━━━━ 3/18 12:05 elapsed  40:10 left
    perceiver-seed0-x0.1  ━━━━━━━━━━ 45/120

    3 of 18 trials  perceiver-seed0-x0.1 45/120  12:05 elapsed  40:10 left
    """

    def __init__(
        self,
        console: Console,
        study: Study,
        jobs: int,
        *,
        seconds_between_lines: float = 60.0,
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        """jobs: trials at a time. seconds: a clock."""
        self.console, self.path, self.jobs = console, study.path, jobs
        self.total = sum(1 for _ in study.trials())
        self._between, self._seconds = seconds_between_lines, seconds
        self._at_work: dict[str, _Work] = {}
        self._before: dict[str, int] = {}
        self._made: list[tuple[Trial, int, float]] = []
        self._bars: Bars | None = None

    def __enter__(self) -> Self:
        self._begun = self._last_line = self._seconds()
        if self.console.is_terminal:
            columns = (
                Words("{task.description}"),
                BarColumn(bar_width=10),
                MofNCompleteColumn(),
                Words("{task.fields[text]}"),
            )
            self._bars = Bars(*columns, console=self.console, refresh_per_second=4)
            self._bars.start()
            self._all = self._bars.add_task("trials", total=self.total, text="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def done(self, trial: Trial, done: int, total: int) -> None:
        """A trial is done, as so many are of all."""
        self.console.print(f"{done} of {total}: {trial.name}", highlight=False, markup=False, soft_wrap=True)
        if (work := self._at_work.get(trial.name)) is not None:
            self._made.append((trial, steps_of(trial) - work.first, self._seconds() - work.begun))

    def watch(self, at_work: Sequence[Trial], waiting: Sequence[Trial], done: int) -> None:
        """What is at work now, what waits, and how many are done."""
        now = self._seconds()
        self._follow(at_work, now)
        left = self._left(waiting, now)
        times = f"{clock(now - self._begun)} elapsed" + ("" if left is None else f"  {clock(left)} left")
        if self._bars is not None:
            self._bars.update(self._all, completed=done, text=times)
        elif now - self._last_line >= self._between:
            self._last_line = now
            names = ", ".join(f"{_short(work.trial)} {work.steps}/{steps_of(work.trial)}" for work in self._at_work.values())
            line = f"{done} of {self.total} trials  {names}  {times}"
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _follow(self, at_work: Iterable[Trial], now: float) -> None:
        trials = {trial.name: trial for trial in at_work}
        for name in self._at_work.keys() - trials.keys():
            ended = self._at_work.pop(name)
            if self._bars is not None and ended.row is not None:
                self._bars.remove_task(ended.row)
        for name, trial in trials.items():
            work = self._at_work.setdefault(name, _Work(trial, now, self._first(trial), self._first(trial)))
            work.steps = max(work.steps, steps_done(trial, self.path / name))
            if self._bars is not None:
                if work.row is None:
                    work.row = self._bars.add_task(_short(trial), total=steps_of(trial), text="")
                self._bars.update(work.row, completed=work.steps)

    def _left(self, waiting: Iterable[Trial], now: float) -> float | None:
        making = [(work.trial, work.steps - work.first, now - work.begun) for work in self._at_work.values()]
        to_go = [(trial, steps_of(trial) - self._first(trial)) for trial in waiting]
        to_go += [(work.trial, steps_of(work.trial) - work.steps) for work in self._at_work.values()]
        return Pace([*self._made, *making]).left(to_go, self.jobs)

    def _first(self, trial: Trial) -> int:
        """Steps that it had made when this was first asked: looked up once, for many trials may wait."""
        if trial.name not in self._before:
            self._before[trial.name] = steps_done(trial, self.path / trial.name)
        return self._before[trial.name]


def _short(trial: Trial) -> str:
    return trial.name.removeprefix("trials/")
