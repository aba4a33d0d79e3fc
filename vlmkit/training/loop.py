"""The training loop: stages one after the other, stopped and continued at any step without a trace in the result.

Batches are asked for by number, rates follow from the step, and the state holds all the rest, so a run that was stopped
goes on to the same bits. The loop is the same for every engine, from one process to ZeRO-3 on many machines.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import Dataset

from vlmkit.data.mixture import Batches, Mixture, merge_states
from vlmkit.files import write_whole
from vlmkit.screen import Screen
from vlmkit.training.adapted import scales_of
from vlmkit.training.ahead import mixed, numbered, working_ahead
from vlmkit.training.blueprint import Blueprint, OfModule
from vlmkit.training.copies import Copier
from vlmkit.training.engines import engine as engine_of
from vlmkit.training.engines.base import Engine, Loss
from vlmkit.training.flops import ModelFlops, learning_shares
from vlmkit.training.lineage import Lineage, described
from vlmkit.training.looking import Evaluate, looking
from vlmkit.training.meters import CountedBatches, Counts, Meters
from vlmkit.training.metrics_log import MetricsLog
from vlmkit.training.objectives.task import Task
from vlmkit.training.optimizers import build_optimizers, set_rates
from vlmkit.training.processes import Processes
from vlmkit.training.progress import StageProgress
from vlmkit.training.rehearsal import refuse_elsewhere
from vlmkit.training.run import RunDirectory
from vlmkit.training.signals import StopSignals
from vlmkit.training.soundness import is_sound
from vlmkit.training.spread import least_of, spread_of
from vlmkit.training.stage import Stage
from vlmkit.training.states import SavedState, Saver, StateError
from vlmkit.training.update import Update, gradients, model_loss


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """The run was asked to stop; its state is saved. `signal` is the number of the signal."""

    def __init__(self, stage: str, step: int, signal: int) -> None:
        super().__init__(f"stopped in stage {stage} after {step} steps")
        self.signal = signal


class Trainer:
    """Trains a model through stages in the directory of a run."""

    def __init__(
        self,
        run: RunDirectory,
        model: nn.Module | Blueprint,
        *,
        engine: Engine | None = None,
        seed: int = 0,
        console: Console | None = None,
        save_seconds: float = 30.0,
        workers: int = 1,
        threads: int = 1,
        stop: StopSignals | None = None,
    ) -> None:
        """model: one that is there, or a blueprint, from which engines that spread weights make their shares. A run that was begun
        before goes on with the weights of its state. engine: "single" unless given. seed: of torch's, NumPy's and Python's own random
        numbers where a run begins. `workers` processes prepare batches ahead; with 0
        the training process does it. Each decodes in so many `threads` where batches come from a mixture. stop: signals that the
        caller listens for already; otherwise the stages do.
        """
        self.run = run
        self.engine = engine or engine_of("single", Processes())
        self.processes = self.engine.processes
        self.console = console or Screen(quiet=not self.processes.main)
        self.seed = seed
        self.save_seconds = save_seconds
        self.workers = workers
        self.threads = threads
        self._stop = stop
        self._saver = Saver(run.state, self.processes)
        state = SavedState.newest(run.state)
        self._lineage = Lineage(OfModule(model) if isinstance(model, nn.Module) else model, self.engine, state, seed)
        position = state.position if state else {}
        self.done: list[str] = list(position.get("done", []))
        """Names of stages that are finished."""
        self.updates: int = position.get("updates", 0)
        """Steps of all stages."""
        self.seconds: float = position.get("seconds", 0.0)
        """Time spent in stages, over all processes that worked on the run."""
        self._data: Batches | None = None
        self._each = 0
        self.log: MetricsLog | None = None
        if self.processes.main:
            self.log = MetricsLog(run.path, keep=position.get("log", 0), step=self.updates)

    @property
    def model(self) -> Any:
        """The model with today's weights; of an engine that spreads them, the last stage's share of it."""
        return self._lineage.model

    def release(self) -> None:
        """Let go of the model, for whoever goes on with what the state of the run holds."""
        self._lineage.model = None

    def train(
        self,
        stage: Stage,
        batches: Mixture | Dataset[dict[str, Tensor]],
        *,
        loss: Loss = model_loss,
        head: nn.Module | None = None,
        evaluate: Evaluate | None = None,
        evaluate_every: int = 0,
    ) -> None:
        """Train one stage from where it stands; a finished one is passed over.

        batches: a mixture that does not end, whose state is saved with the run's; or micro-batch n of the stage as
        `batches[n]`, for any n. loss: the mean loss of a batch, by default that of the stage's objective, or the model's own.
        head: a module that learns in this stage only, at the rate `stage.head`. evaluate: called by every process after each
        `evaluate_every` steps and after the last; its scores stand in the record of the step (vlmkit.training.looking).

        Raises Interrupted after SIGINT or SIGTERM, with the state saved, DivergedError, TooManyRejected, and StateError where
        an update was made of another number of micro-batches before.
        """
        if stage.name in self.done:
            return
        world = self.processes.world
        stage = stage.resolved(world)
        if stage.objective is not None and loss is model_loss:
            task = stage.objective.task(self._lineage.architecture(stage), self.seed)
            loss, head = task, task.head
        refuse_elsewhere(stage, self.engine.name, self.processes, head is not None)
        state = self._lineage.place(stage, head)
        begun_before = state is not None and state.position.get("stage") == stage.name
        first = self._first(stage, state) if state is not None and begun_before else 0
        parts = self._lineage.parts(head)
        self.engine.begin(stage, self.model, lambda: build_optimizers(stage, parts, fused=not self.engine.spread), head)
        if stage.ema is not None:
            self.engine.start_averages()
        if state is not None and begun_before:
            self.engine.restore(state)
        data = state.position.get("data") if state is not None and begun_before else None
        self._each = stage.accumulate * world
        samples = stage.batch_size * stage.accumulate * world
        meters = Meters(device=self.processes.device, processes=world)
        flops = ModelFlops(self.model.spec, learning_shares(parts)) if meters.peak and loss is model_loss else None
        bar = StageProgress(self.console, stage.name, steps=stage.steps, first=first, samples=samples)
        with ExitStack() as held:
            stop = self._stop or held.enter_context(StopSignals())
            ahead = held.enter_context(working_ahead(lambda: self._batches(stage, batches, first, data)))
            progress = held.enter_context(bar)
            if not self.updates:
                seed_everything(self.seed + self.processes.rank)
            if state is not None:
                state.restore_random(self.processes.rank)
            drawn = self._prepared(ahead, loss, first * self._each) if isinstance(loss, Task) else ahead
            counted, copier = CountedBatches(drawn, flops), Copier(self.processes.device)
            begun, saved_at = time.perf_counter() - self.seconds, time.perf_counter()
            ended = saved_at
            for step in range(first, stage.steps):
                rates = set_rates(self.engine.rated, stage, step)
                update = gradients(self.engine, stage, counted, loss, copier)
                sound = is_sound(stage, step, update, rates, self.console, self._taken)
                self.engine.step() if sound else self.engine.forget()
                if stage.ema is not None and sound:
                    self.engine.average(stage.ema)
                now = time.perf_counter()
                self.updates += 1
                self.seconds = now - begun
                counts, stopping, saving = self._agree(counted.take(), stop.number, now - saved_at >= self.save_seconds)
                measured = meters.step(counts, now - ended) | spread_of(self.model, self.processes)
                progress.update(step + 1, update.loss, meters.recent() | least_of(measured))
                looks = evaluate is not None and evaluate_every and ((step + 1) % evaluate_every == 0 or step + 1 == stage.steps)
                scores = self._look(evaluate) if looks and evaluate is not None else {}
                self._record(stage, step, update, rates, measured, scores, skipped=not sound)
                ended = time.perf_counter()
                if stopping or saving:
                    self._save(stage.name, step + 1)
                    ended = saved_at = time.perf_counter()
                if stopping:
                    self._saver.commit()
                    raise Interrupted(stage.name, step + 1, stopping)
        self.done.append(stage.name)
        self._save("", 0)
        self._saver.commit()
        self.engine.end()
        saved = SavedState.newest(self.run.state)
        assert saved is not None, "it was committed a moment ago"
        self._lineage.leave(stage, saved, self.run.path / "adapters" / stage.name)
        if self._data is not None:
            self._report(self._data)
            self._data = None

    def _first(self, stage: Stage, state: SavedState) -> int:
        """The step to go on from within a stage."""
        before, now = state.position.get("micro_batches"), stage.accumulate * self.processes.world
        if before not in (None, now):
            raise StateError(
                f"stage {stage.name!r} was begun with {before} micro-batches an update, now it has {now} ({stage.accumulate} accumulated "
                f"in each of {self.processes.world} processes); continue with as many in all"
            )
        return int(state.position["step"])

    def _batches(
        self, stage: Stage, batches: Mixture | Dataset[dict[str, Tensor]], first: int, data: Mapping[str, Any] | None
    ) -> Iterator[dict[str, Tensor]]:
        """This process's micro-batches of the steps from `first` on."""
        if not isinstance(batches, Mixture):
            return numbered(batches, stage, first, self.processes, workers=self.workers)
        self._data = mixed(batches, data, self.processes, workers=self.workers, threads=self.threads)
        return self._data

    def _prepared(self, batches: Iterator[dict[str, Tensor]], task: Task, first: int) -> Iterator[dict[str, Tensor]]:
        """Micro-batches from number `first` on, with what the task draws for each."""
        for place, batch in enumerate(batches):
            yield task.prepared(batch, first + place * self.processes.world + self.processes.rank)

    def _taken(self) -> list[str]:
        """Samples of the last micro-batch of every process; nothing of data without names."""
        return [] if self._data is None else [name for of in self.processes.gather(self._data.taken) for name in of]

    def _record(
        self,
        stage: Stage,
        step: int,
        update: Update,
        rates: Mapping[str, float],
        measured: Mapping[str, float],
        scores: Mapping[str, float],
        *,
        skipped: bool,
    ) -> None:
        if self.log is not None:
            record = {"stage": stage.name, "step": step, "loss": update.loss, "rate": max(rates.values()), "norm": update.norm}
            record |= {f"rate/{path}": rate for path, rate in rates.items()} | ({"skipped": True} if skipped else {})
            self.log.write(self.updates, record | dict(measured) | {"seconds": round(self.seconds, 3)}, scores)

    def _look(self, evaluate: Evaluate) -> Mapping[str, float]:
        with looking(self.engine, self.model):
            return evaluate(self.model)

    def _agree(self, counts: Counts, stopping: int, saving: bool) -> tuple[Counts, int, bool]:
        """What all processes counted, and what all do after this step: a signal reaches one of them, and clocks differ. A state that all
        have written counts from here on."""
        mine = [stopping, saving and self.processes.main, self._saver.finished, *counts.to_list()]
        signals, clocks, written, *summed = self.processes.sum(mine)
        if written == self.processes.world:
            self._saver.commit()
        return Counts.from_list(summed), (stopping or signal.SIGTERM) if signals else 0, bool(clocks)

    def _report(self, data: Batches) -> None:
        """Say what of the stage's data was left out, or cut."""
        for what, counts in (("left out", data.rejected), ("kept without their last turns", data.cut)):
            if counts.total():
                self.console.print(
                    f"samples {what}, by source and reason:\n{counts.report()}", highlight=False, markup=False, soft_wrap=True
                )

    def _save(self, stage: str, step: int) -> None:
        position: dict[str, Any] = {"stage": stage, "step": step, "done": self.done, "updates": self.updates, "seconds": self.seconds}
        position |= {"micro_batches": self._each, "model": described(self.model), "adapters": scales_of(self.model)}
        if self._data is not None:
            position["data"] = merge_states(self.processes.gather(self._data.state()))
            if self.processes.main:
                # For people: what is continued from is the same inside the state, which counts as a whole.
                write_whole(self.run.data, json.dumps(position["data"], indent=2, ensure_ascii=False) + "\n")
        if self.log is not None:
            position["log"] = self.log.flush()
        number = f"{self.updates:09}-{len(self.done)}"
        scalars = self.engine.scalars() if stage else {}
        self._saver.begin(number, self.engine.pieces(self.model, within=bool(stage)), scalars, position)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
