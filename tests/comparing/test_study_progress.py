"""A comparison tells what is trained now, how long it has taken and how long it will take; and it looks at files only where they change."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from tests.training.conftest import small
from vlmkit.comparing import study as studies
from vlmkit.comparing.candidates import candidates
from vlmkit.comparing.progress import Pace, StudyProgress, steps_done
from vlmkit.comparing.study import Study
from vlmkit.comparing.trial import RESULT, Trial
from vlmkit.comparing.world import DrawnWorld


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two warm-ups of 20 + 20 steps or so, and four trials behind them."""
    found = candidates(small(), {"connector": ["conv_patch_merger", "mlp:depth=1"]})
    return Study(tmp_path / "study", tuple(found), 2, {0.02: DrawnWorld(0.02, 4, 0.02)})


def logged(study: Study, trial: Trial, steps: int) -> None:
    """The log of a trial that has made so many steps, and is writing the next."""
    numbered = [(stage.name, step) for stage in trial.stages for step in range(stage.steps)][:steps]
    file = study.path / trial.name / "metrics.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"stage": name, "step": step}) + "\n" for name, step in numbered) + '{"stage": "al', "utf-8")


def total(trial: Trial) -> int:
    return sum(stage.steps for stage in trial.stages)


def test_steps_of_a_trial_are_read_from_its_log(study):
    trial = list(study.trials())[-1]
    assert steps_done(trial, study.path / trial.name) == 0
    for steps in (0, 1, trial.stages[0].steps, trial.stages[0].steps + 1, total(trial)):
        logged(study, trial, steps)
        assert steps_done(trial, study.path / trial.name) == steps


def test_the_time_left_follows_from_the_steps_of_each_kind(study):
    warm, *_, trial = study.trials()
    assert Pace([]).left([(trial, 10)], 1) is None
    assert Pace([(trial, 10, 20.0)]).left([], 1) == 0
    assert Pace([(trial, 10, 20.0)]).left([(trial, 5), (warm, 5)], 1) == 20  # of warm-ups nothing is known
    assert Pace([(trial, 10, 20.0), (warm, 10, 5.0)]).left([(trial, 5), (warm, 6)], 1) == 13
    assert Pace([(trial, 10, 20.0)]).left([(trial, 5), (trial, 5)], 8) == 10


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_trained_now_is_shown_with_the_time_taken_and_left(study, terminal):
    file, clock = io.StringIO(), SimpleNamespace(now=0.0)
    console = Console(file=file, width=120, force_terminal=terminal, color_system=None, legacy_windows=False)
    warm, other, *waiting = study.trials()
    with StudyProgress(console, study, 1, seconds_between_lines=5.0, seconds=lambda: clock.now) as progress:
        progress.watch([warm], [other, *waiting], 0)
        clock.now = float(total(warm))
        progress.done(warm, 1, 6)
        progress.watch([other], waiting, 1)
        logged(study, other, 3)
        clock.now += 3
        progress.watch([other], waiting, 1)
        clock.now += 2
        progress.watch([other], waiting, 1)
    text = file.getvalue()
    assert f"1 of 6: {warm.name}" in text
    assert f"{other.name.removeprefix('trials/')}" in text
    assert f"3/{total(other)}" in text
    assert "1/6" in text if terminal else "1 of 6 trials" in text
    assert " elapsed" in text
    # All steps took a second, but for two seconds in which none was written.
    to_go = total(other) - 3 + sum(map(total, waiting))
    minutes, seconds = divmod(round(to_go * (total(warm) + 5) / (total(warm) + 3)), 60)
    assert f"{minutes}:{seconds:02} left" in text


def test_nothing_is_read_or_reckoned_twice_while_trials_are_at_work(study, monkeypatch):
    """Whatever the number of looks: a comparison waits for hours."""
    digests, looks = [], itertools.count()
    digest = Study.digest
    monkeypatch.setattr(Study, "digest", lambda self, trial: digests.append(trial.name) or digest(self, trial))
    planned = []
    monkeypatch.setattr(Study, "_planned", lambda self, made=Study._planned: planned.append(1) or made(self))

    class Process:
        """Done after fifty looks."""

        def __init__(self, command, **options):
            self.looks, self.returncode = 50, 0

        def poll(self):
            next(looks)
            self.looks -= 1
            return 0 if self.looks <= 0 else None

    monkeypatch.setattr(studies.subprocess, "Popen", Process)
    monkeypatch.setattr(studies, "PAUSE", 0)
    told = []
    study.run(2, lambda trial, done, count: told.append((trial.name, done, count)))
    trials = [trial.name for trial in study.trials()]
    assert [name for name, _, _ in told] == trials
    assert [done for _, done, _ in told] == list(range(1, 7))
    assert next(looks) >= 150
    assert len(digests) <= len(trials)
    assert len(planned) == 1


def test_a_trial_begins_when_its_warm_up_is_done_and_not_before(study, monkeypatch):
    at_work = []

    class Process:
        def __init__(self, command, **options):
            at_work.append(command[-1])
            self.returncode = 0

        def poll(self):
            return 0

    monkeypatch.setattr(studies.subprocess, "Popen", Process)
    monkeypatch.setattr(studies, "PAUSE", 0)
    first, *_ = study.trials()
    (study.path / first.name).mkdir(parents=True)
    (study.path / first.name / RESULT).write_text(json.dumps({"of": study.digest(first)}), "utf-8")
    study.run(1, lambda *each: None)
    assert first.name not in at_work
    for trial in study.trials():
        if trial.warm and trial.warm != first.name:
            assert at_work.index(trial.warm) < at_work.index(trial.name)
