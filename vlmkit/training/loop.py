"""The training loop: stages one after the other, stopped and continued at any step without a trace in the result.

Batches are asked for by number, rates follow from the step, and the state holds all the rest, so a run that was stopped
goes on to the same bits. The same loop runs in one process, under `accelerate launch` and on DeepSpeed ZeRO-3.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import gather_object
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import Dataset

from vlmkit.architecture import PARTS
from vlmkit.data.mixture import Batches, Mixture, merge_states
from vlmkit.files import replace_directory, write_whole
from vlmkit.training.ahead import mixed, numbered, working_ahead
from vlmkit.training.checkpoint import State, StateError, save_state
from vlmkit.training.flops import ModelFlops, learning_shares
from vlmkit.training.meters import CountedBatches, Counts, Meters
from vlmkit.training.metrics_log import MetricsLog
from vlmkit.training.optimizers import adapters_of, build_optimizers, learning_parameters, prepare_parts, refuse_unclaimed, set_rates
from vlmkit.training.progress import StageProgress
from vlmkit.training.run import RunDirectory
from vlmkit.training.sharded import ShardedState, save_sharded
from vlmkit.training.signals import StopSignals
from vlmkit.training.stage import Stage
from vlmkit.training.update import Loss, apply, gradients, model_loss


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """The run was asked to stop; its state is saved. `signal` is the number of the signal."""

    def __init__(self, stage: str, step: int, signal: int) -> None:
        super().__init__(f"stopped in stage {stage} after {step} steps")
        self.signal = signal


class DivergedError(ArithmeticError):
    """The loss or its gradient is no longer a number. No weight was moved by it, and the last saved state is from before."""


class Trainer:
    """Trains a model through stages in the directory of a run."""

    def __init__(
        self,
        run: RunDirectory,
        model: nn.Module,
        *,
        accelerator: Accelerator | None = None,
        console: Console | None = None,
        save_seconds: float = 30.0,
        workers: int = 1,
        threads: int = 1,
        rebuild: Callable[[Path], nn.Module] | None = None,
    ) -> None:
        """A model whose run was begun before is filled with the weights of its state. `workers` processes prepare
        batches ahead; with 0 the training process does it. Each decodes in so many `threads` where batches come from a
        mixture. `rebuild`: makes the model from weights that `save_pretrained` wrote; DeepSpeed needs it, for a model that
        went through it cannot go through it again."""
        self.run = run
        self.model: Any = model
        self._adapters = adapters_of(model)
        self.accelerator = accelerator or Accelerator()
        self.console = console or Console(quiet=not self.accelerator.is_main_process)
        self.save_seconds = save_seconds
        self.workers = workers
        self.threads = threads
        self.rebuild = rebuild
        self.sharded = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        self._state: State | ShardedState | None = None
        if self.sharded:
            self._state = ShardedState(run.shards, self.accelerator.num_processes)
        elif run.state.is_file():
            self._state = State(run.state)
            self._state.load_module("model", model)
        position = self._state.position if self._state else {}
        self.done: list[str] = list(position.get("done", []))
        """Names of stages that are finished."""
        self.updates: int = position.get("updates", 0)
        """Steps of all stages."""
        self.seconds: float = position.get("seconds", 0.0)
        """Time spent in stages, over all processes that worked on the run."""
        self._data: Batches | None = None
        self._each = 0
        self.log: MetricsLog | None = None
        if self.accelerator.is_main_process:
            self.log = MetricsLog(run.path, keep=position.get("log", 0), step=self.updates)

    def train(
        self,
        stage: Stage,
        batches: Mixture | Dataset[dict[str, Tensor]],
        *,
        loss: Loss = model_loss,
        head: nn.Module | None = None,
    ) -> None:
        """Train one stage from where it stands; a finished one is passed over.

        batches: a mixture that does not end, whose state is saved with the run's; or micro-batch n of the stage as
        `batches[n]`, for any n. loss: the mean loss of a batch, by default the model's own. head: a module that learns in
        this stage only, at the rate `stage.head`.

        Raises Interrupted after SIGINT or SIGTERM, with the state saved, DivergedError, TooManyRejected, and StateError where
        an update was made of another number of micro-batches before.
        """
        if stage.name in self.done:
            return
        world = self.accelerator.num_processes
        if world > 1 and (head is not None or stage.optimizer == "muon"):
            raise ValueError(f"stage {stage.name!r} has a head or uses muon: it trains in one process, not in {world}")
        parts = {part: getattr(self.model, part) for part in PARTS} | ({"head": head} if head is not None else {})
        modules = {"model": self.model} | ({"head": head} if head is not None else {})
        refuse_unclaimed(self.model, parts)
        self._set_up(stage, parts)
        optimizers = build_optimizers(stage, parts, fused=not self.sharded)
        if self.sharded:
            self.accelerator.state.deepspeed_plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = stage.batch_size
            self.accelerator.state.deepspeed_plugin.deepspeed_config["gradient_clipping"] = stage.clip
        model, *prepared = self.accelerator.prepare(self.model, *optimizers)
        first = self._continue(stage, optimizers, head)
        parameters = [parameter for _, _, parameter in learning_parameters(stage, parts)]
        self._each = stage.accumulate * world
        samples = stage.batch_size * stage.accumulate * world
        meters = Meters(device=self.accelerator.device, processes=world)
        flops = ModelFlops(self.model.spec, learning_shares(parts)) if meters.peak and loss is model_loss else None
        bar = StageProgress(self.console, stage.name, steps=stage.steps, first=first, samples=samples)
        with StopSignals() as stop, working_ahead(lambda: self._batches(stage, batches, first)) as ahead, bar as progress:
            if isinstance(self._state, State):
                self._state.restore_random()
            self._state = None
            counted = CountedBatches(ahead, flops)
            begun, saved_at = time.perf_counter() - self.seconds, time.perf_counter()
            ended = saved_at
            for step in range(first, stage.steps):
                rates = set_rates(prepared, stage.factor(step))
                rate = max(rates.values())
                value, norm = gradients(self.accelerator, stage, model, parameters, counted, loss)
                if not (math.isfinite(value) and math.isfinite(norm)):
                    gradient = f", but its gradient's norm is {norm}" if math.isfinite(value) else ""
                    what = f"the loss is {value:g}{gradient}"
                    raise DivergedError(f"stage {stage.name}, step {step}: {what}; lower the learning rate (its peak here is {rate:g})")
                apply(prepared)
                now = time.perf_counter()
                self.updates += 1
                self.seconds = now - begun
                measured = meters.step(self._summed(counted.take()), now - ended)
                ended = now
                if self.log is not None:
                    record = {"stage": stage.name, "step": step, "loss": value, "rate": rate, "norm": norm}
                    record |= {f"rate/{part}": of_part for part, of_part in rates.items()}
                    self.log.write(self.updates, record | measured | {"seconds": round(self.seconds, 3)})
                progress.update(step + 1, value, meters.recent())
                stopping, saving = self._agree(stop.number, now - saved_at >= self.save_seconds)
                if stopping or saving:
                    self._save(stage.name, step + 1, modules, optimizers)
                    ended = saved_at = time.perf_counter()
                if stopping:
                    raise Interrupted(stage.name, step + 1, stopping)
        self.done.append(stage.name)
        if self.sharded:
            self._export(model)
        self.accelerator.free_memory()
        self._save("", 0, {"model": self.model}, [])
        if self._data is not None:
            self._report(self._data)
            self._data = None

    def _continue(self, stage: Stage, optimizers: list[torch.optim.Optimizer], head: nn.Module | None) -> int:
        """The step to begin at, with everything filled from a state that was saved within this stage."""
        if self._state is None or self._state.position.get("stage") != stage.name:
            return 0
        if isinstance(self._state, ShardedState):
            self._state.load(self.accelerator)
        else:
            self._state.load_optimizers(optimizers)
            if head is not None:
                self._state.load_module("head", head)
        before, now = self._state.position.get("micro_batches"), stage.accumulate * self.accelerator.num_processes
        if before not in (None, now):
            raise StateError(
                f"stage {stage.name!r} was begun with {before} micro-batches an update, now it has {now} ({stage.accumulate} accumulated "
                f"in each of {self.accelerator.num_processes} processes); continue with as many in all"
            )
        return int(self._state.position["step"])

    def _export(self, model: Any) -> None:
        """Gather the weights, write them as a checkpoint, and go on with a model made from it."""
        assert self.rebuild is not None, "DeepSpeed needs Trainer(rebuild=...)"
        weights = self.accelerator.get_state_dict(model)
        if self.accelerator.is_main_process:
            with replace_directory(self.run.weights) as directory:
                self.accelerator.unwrap_model(model).save_pretrained(directory, state_dict=weights)
        self.accelerator.wait_for_everyone()
        self.model = self.rebuild(self.run.weights)

    def _set_up(self, stage: Stage, parts: Mapping[str, nn.Module]) -> None:
        if stage.recompute:
            self.model.gradient_checkpointing_enable()
        elif any(getattr(module, "gradient_checkpointing", False) for module in self.model.modules()):
            self.model.gradient_checkpointing_disable()
        self.model.train()
        prepare_parts(stage, parts, self._adapters)

    def _batches(self, stage: Stage, batches: Mixture | Dataset[dict[str, Tensor]], first: int) -> Iterator[dict[str, Tensor]]:
        """This process's micro-batches of the steps from `first` on."""
        if not isinstance(batches, Mixture):
            return numbered(batches, stage, first, self.accelerator, workers=self.workers)
        state = self._state.position["data"] if first and self._state is not None else None
        self._data = mixed(batches, state, self.accelerator, workers=self.workers, threads=self.threads)
        return self._data

    def _agree(self, stopping: int, saving: bool) -> tuple[int, bool]:
        """All processes stop and save at the same step: a signal reaches one of them, and clocks differ."""
        if self.accelerator.num_processes == 1:
            return stopping, saving
        mine = torch.tensor([stopping, int(saving and self.accelerator.is_main_process)], device=self.accelerator.device)
        signals, clocks = self.accelerator.reduce(mine, reduction="sum").tolist()
        return (stopping or signal.SIGTERM) if signals else 0, bool(clocks)

    def _summed(self, counts: Counts) -> Counts:
        """Over all processes."""
        if self.accelerator.num_processes == 1:
            return counts
        return Counts.from_list(self.accelerator.reduce(torch.tensor(counts.to_list(), device=self.accelerator.device)).tolist())

    def _report(self, data: Batches) -> None:
        """Say what of the stage's data was left out, or cut."""
        for what, counts in (("left out", data.rejected), ("kept without their last turns", data.cut)):
            if counts.total():
                self.console.print(
                    f"samples {what}, by source and reason:\n{counts.report()}", highlight=False, markup=False, soft_wrap=True
                )

    def _save(self, stage: str, step: int, modules: Mapping[str, nn.Module], optimizers: list[torch.optim.Optimizer]) -> None:
        position: dict[str, Any] = {"stage": stage, "step": step, "done": self.done, "updates": self.updates, "seconds": self.seconds}
        position["micro_batches"] = self._each
        if self._data is not None:
            states = [self._data.state()]
            position["data"] = merge_states(gather_object(states) if self.accelerator.num_processes > 1 else states)
            if self.accelerator.is_main_process:
                # For people: what is continued from is the same inside the state, which is written in one go.
                write_whole(self.run.data, json.dumps(position["data"], indent=2, ensure_ascii=False) + "\n")
        if self.log is not None:
            position["log"] = self.log.flush()
        if self.sharded:
            save_sharded(self.accelerator, self.run.shards, position, weights=bool(stage))
        elif self.accelerator.is_main_process:
            save_state(self.run.state, modules, optimizers, position)
