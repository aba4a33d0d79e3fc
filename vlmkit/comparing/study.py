"""All trials of a comparison in one directory: begun, continued, spread over processes."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmkit.architecture import Architecture
from vlmkit.comparing.candidates import Candidate
from vlmkit.comparing.trial import RESULT, Trial
from vlmkit.comparing.world import DrawnWorld, ShardsWorld, World
from vlmkit.files import write_whole
from vlmkit.plugins import load_plugin
from vlmkit.training.run import RunError

STUDY = "study.json"
PAUSE = 0.2
"""Seconds between two looks at processes."""


Watch = Callable[[Sequence[Trial], Sequence[Trial], int], None]


class TrialError(RuntimeError):
    """Trials that went wrong; the others are done, and the same command tries these again."""


@dataclass(frozen=True)
class Study:
    path: Path
    candidates: tuple[Candidate, ...]
    seeds: int
    worlds: Mapping[float, World]
    """By budget: a fraction of the steps."""
    threads: int = 1
    """Of each trial; another number adds numbers in another order."""
    plugins: tuple[str, ...] = ()
    """What each trial loads before it reads what it is."""

    def write(self) -> None:
        """What its processes read. Candidates, seeds and budgets may have come since the directory was begun."""
        write_whole(self.path / STUDY, json.dumps(self._described(), indent=2, ensure_ascii=False) + "\n")

    def _described(self) -> dict[str, Any]:
        return {
            "plugins": list(self.plugins),
            "candidates": [
                {"name": one.name, "architecture": one.architecture.to_dict(), "warmed": one.warmed.to_dict()} for one in self.candidates
            ],
            "seeds": self.seeds,
            "threads": self.threads,
            "worlds": [{"budget": budget} | world.description() for budget, world in self.worlds.items()],
        }

    @classmethod
    def read(cls, path: Path) -> Study:
        """The study in a directory. Raises RunError where there is none."""
        try:
            told = json.loads((path / STUDY).read_text("utf-8"))
        except FileNotFoundError:
            raise RunError(f"{path} holds no comparison; 'vlmkit compare' begins one") from None
        for plugin in told["plugins"]:
            load_plugin(plugin)
        found = tuple(
            Candidate(one["name"], Architecture.from_dict(one["architecture"]), Architecture.from_dict(one["warmed"]))
            for one in told["candidates"]
        )
        worlds = {world["budget"]: _world(world) for world in told["worlds"]}
        return cls(path, found, told["seeds"], worlds, told["threads"], tuple(told["plugins"]))

    def trials(self) -> Iterator[Trial]:
        """Warm-ups first, then every candidate under each seed and budget: what has more seeds comes before what has more budgets."""
        yield from self._by_name.values()

    @functools.cached_property
    def _by_name(self) -> dict[str, Trial]:
        return {trial.name: trial for trial in self._planned()}

    def _planned(self) -> Iterator[Trial]:
        warmed: dict[str, Trial] = {}
        world = next(iter(self.worlds.values()))
        if world.warm_up:
            for candidate in self.candidates:
                for seed in range(self.seeds):
                    name = self._warm(candidate, seed)
                    warmed.setdefault(name, Trial(name, candidate.warmed, seed, world, self._pictures(seed, 0), warms=True))
        yield from warmed.values()
        for budget, of_budget in self.worlds.items():
            for seed in range(self.seeds):
                for candidate in self.candidates:
                    warm = self._warm(candidate, seed) if of_budget.warm_up else ""
                    name = self.name(candidate, seed, budget)
                    yield Trial(name, candidate.architecture, seed, of_budget, self._pictures(seed, budget), warm)

    def trial(self, name: str) -> Trial:
        return self._by_name[name]

    def name(self, candidate: Candidate, seed: int, budget: float) -> str:
        return f"trials/{_short(candidate.name)}-seed{seed}-x{budget:g}"

    def result(self, candidate: Candidate, seed: int, budget: float) -> dict[str, Any] | None:
        return self._result(self.trial(self.name(candidate, seed, budget)))

    def _warm(self, candidate: Candidate, seed: int) -> str:
        spec = json.dumps({name: part for name, part in candidate.warmed.to_dict().items() if name != "name"}, sort_keys=True)
        return f"warm/{hashlib.sha256(spec.encode()).hexdigest()[:8]}-seed{seed}"

    def _pictures(self, seed: int, budget: float) -> Path:
        return self.path / "pictures" / f"seed{seed}-x{budget:g}"

    def digest(self, trial: Trial) -> str:
        """Of all that a result follows from."""
        warmed = self.trial(trial.warm).architecture.to_dict() if trial.warm else None
        stages = [stage.to_dict() for stage in trial.stages] if trial.warms else trial.world.description()
        parts = [trial.architecture.to_dict(), warmed, trial.seed, stages, self.threads]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def _result(self, trial: Trial) -> dict[str, Any] | None:
        """Raises RunError for one of another comparison."""
        file = self.path / trial.name / RESULT
        try:
            found: dict[str, Any] = json.loads(file.read_text("utf-8"))
        except FileNotFoundError:
            return None
        if found["of"] != self.digest(trial):
            raise RunError(
                f"{file} follows from another model, other data, stages or threads than are asked for; name another directory with "
                "--out, or start anew with --fresh"
            )
        return found

    def run(self, jobs: int, told: Callable[[Trial, int, int], None], devices: int = 0, watch: Watch | None = None) -> None:
        """Every trial that has no result, `jobs` at a time. told: called with each that is done, how many are and how many there are.
        devices: GPUs, of which each process sees one. watch: called every second with the trials at work, those that wait, and how
        many are done.

        Raises TrialError when all others are done, and KeyboardInterrupt after the processes have saved their states.
        """
        every = list(self.trials())
        waiting = [trial for trial in every if self._result(trial) is None]
        unfinished = {trial.name for trial in waiting}
        failed: dict[str, str] = {}
        at_work: dict[int, tuple[Trial, subprocess.Popen[bytes]]] = {}
        watched = time.monotonic() - 1
        try:
            while waiting or at_work:
                for slot, (trial, process) in list(at_work.items()):
                    if process.poll() is None:
                        continue
                    del at_work[slot]
                    if process.returncode:
                        failed[trial.name] = self._last_words(trial.name, process.returncode)
                    else:
                        unfinished.remove(trial.name)
                        told(trial, len(every) - len(unfinished), len(every))
                waiting = [trial for trial in waiting if trial.warm not in failed]
                ready = [trial for trial in waiting if trial.warm not in unfinished]
                free = [slot for slot in range(jobs) if slot not in at_work]
                for slot, trial in zip(free, ready, strict=False):
                    waiting.remove(trial)
                    at_work[slot] = (trial, self._begin(trial, slot, devices))
                if watch is not None and time.monotonic() - watched >= 1:
                    watched = time.monotonic()
                    watch([trial for trial, _ in at_work.values()], waiting, len(every) - len(unfinished))
                time.sleep(PAUSE)
        except BaseException:
            _stop([process for _, process in at_work.values()])
            raise
        if failed:
            lines = "\n".join(f"  {name}: {words}" for name, words in failed.items())
            raise TrialError(f"{len(failed)} of {len(every)} trials went wrong; the same command tries them again:\n{lines}")

    def _begin(self, trial: Trial, slot: int, devices: int) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        if devices:
            seen = environment.get("CUDA_VISIBLE_DEVICES", "")
            environment["CUDA_VISIBLE_DEVICES"] = seen.split(",")[slot % devices] if seen else str(slot % devices)
        log = self.path / "logs" / f"{trial.name.replace('/', '-')}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "vlmkit.comparing", str(self.path), trial.name]
        with log.open("wb") as file:
            # A group of its own: Ctrl-C reaches this process, which stops the others itself.
            return subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)

    def _last_words(self, name: str, code: int) -> str:
        log = self.path / "logs" / f"{name.replace('/', '-')}.txt"
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} (exit status {code}; {log})"


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def _world(told: Mapping[str, Any]) -> World:
    """From the description of one."""
    if told["world"] == "drawn":
        return DrawnWorld(told["budget"], told["pictures"], told["warm_up"])
    from vlmkit.training.stage import Stage

    stages = tuple(Stage.from_dict(stage) for stage in told["stages"])
    return ShardsWorld(stages, Path(told["world"]), told["hold_out"])


def _short(name: str) -> str:
    """A name as a file system takes it; what it loses, a digest keeps apart."""
    safe = "".join(letter if letter.isalnum() or letter in "._=," else "_" for letter in name)
    return safe if safe == name and len(safe) < 80 else f"{safe[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
