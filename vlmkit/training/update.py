"""One update of the weights, from the micro-batches of all processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vlmkit.layout.laid_out import IGNORE
from vlmkit.training.engines.base import Batch, Engine, Loss
from vlmkit.training.stage import Stage
from vlmkit.views import is_whole_numbers


class Update(NamedTuple):
    loss: float
    """Mean over all supervised tokens of all processes."""
    norm: float
    """Of the gradient, before it was cut."""


def model_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The model's own loss: mean cross-entropy over supervised tokens."""
    loss: Tensor = model(**batch).loss
    return loss


def to_device(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """A batch whose whole numbers about views stay on the CPU, where they are read."""
    return {name: value if is_whole_numbers(name) else value.to(device, non_blocking=True) for name, value in batch.items()}


def gradients(engine: Engine, stage: Stage, batches: Iterator[dict[str, Tensor]], loss: Loss) -> Update:
    """The gradients of one update, from `accumulate` micro-batches of each process. Every process gets the same two numbers."""
    processes = engine.processes
    micro = [to_device(next(batches), processes.device) for _ in range(stage.accumulate)]
    pieces = len(micro) * processes.world
    if pieces > 1 and all("labels" in batch for batch in micro):
        # Every supervised token of the update counts the same, in whichever micro-batch or process it is.
        supervised = torch.stack([(batch["labels"][:, 1:] != IGNORE).sum() for batch in micro]).sum()
        items = processes.summed(supervised)
        micro = [batch | {"num_items_in_batch": items / pieces} for batch in micro]
    total = torch.zeros((), device=processes.device)
    for number, batch in enumerate(micro):
        total += engine.backward(loss, batch, part=1 / len(micro), last=number == len(micro) - 1)
    norm = engine.norm(stage.clip)
    return Update((processes.summed(total) / processes.world).item(), norm)
