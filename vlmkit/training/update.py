"""One update of the weights, from the micro-batches of all processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vlmkit.losses import supervised_weight
from vlmkit.training.copies import Copier
from vlmkit.training.engines.base import Batch, Engine, Loss
from vlmkit.training.objectives.task import Task
from vlmkit.training.stage import Stage


class Update(NamedTuple):
    loss: float
    """Mean over all supervised tokens of all processes, by their weights."""
    norm: float
    """Of the gradient, before it was cut."""


def model_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The model's own loss: mean cross-entropy over supervised tokens."""
    loss: Tensor = model(**batch).loss
    return loss


def _supervised(batch: Batch) -> dict[str, Tensor]:
    return {"num_items_in_batch": supervised_weight(batch["labels"], batch.get("loss_weights"))} if "labels" in batch else {}


def _nothing(batch: Batch) -> dict[str, Tensor]:
    return {}


def gradients(engine: Engine, stage: Stage, batches: Iterator[dict[str, Tensor]], loss: Loss, copier: Copier) -> Update:
    """The gradients of one update, from `accumulate` micro-batches of each process. Every process gets the same two numbers."""
    processes = engine.processes
    taken = [next(batches) for _ in range(stage.accumulate)]
    micro = [copier.begin(batch) for batch in taken]
    pieces = len(micro) * processes.world
    counted: dict[str, Tensor] = {}
    if pieces > 1:
        # Every supervised token of the update counts by its own weight, in whichever micro-batch or process it is. What an objective
        # divides by is of the whole update likewise.
        of_objective = loss.totals if isinstance(loss, Task) else _nothing
        found = [_supervised(batch) | of_objective(batch) for batch in taken]
        for name in found[0]:
            own = torch.stack([totals[name] for totals in found]).sum().float()
            counted[name] = processes.summed(own.to(processes.device)) / pieces
    total = torch.zeros((), device=processes.device)
    for number, coming in enumerate(micro):
        batch = copier.take(coming) | counted
        total += engine.backward(loss, batch, part=1 / len(micro), last=number == len(micro) - 1)
    norm = engine.norm(stage.clip)
    return Update((processes.summed(total) / processes.world).item(), norm)
