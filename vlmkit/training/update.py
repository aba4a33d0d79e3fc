"""One update of the weights, from the micro-batches of all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from vlmkit.layout.laid_out import IGNORE
from vlmkit.training.stage import Stage
from vlmkit.views import is_whole_numbers

Batch = Mapping[str, Tensor]
Loss = Callable[[nn.Module, Batch], Tensor]
"""The model and a batch -> the mean loss of the batch."""


def model_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The model's own loss: mean cross-entropy over supervised tokens."""
    loss: Tensor = model(**batch).loss
    return loss


def to_device(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """A batch whose whole numbers about views stay on the CPU, where they are read."""
    return {name: value if is_whole_numbers(name) else value.to(device, non_blocking=True) for name, value in batch.items()}


def gradients(
    accelerator: Accelerator,
    stage: Stage,
    model: nn.Module,
    parameters: list[nn.Parameter],
    ahead: Iterator[dict[str, Tensor]],
    loss: Loss,
) -> tuple[float, float]:
    """The gradients of one update, from `accumulate` micro-batches: its loss, and their norm before clipping. Every process gets the same
    two numbers."""
    device = accelerator.device
    batches = [to_device(next(ahead), device) for _ in range(stage.accumulate)]
    pieces = len(batches) * accelerator.num_processes
    if pieces > 1 and all("labels" in batch for batch in batches):
        # Every supervised token of the update counts the same, in whichever micro-batch or process it is.
        supervised = sum((batch["labels"][:, 1:] != IGNORE).sum() for batch in batches)
        items = accelerator.reduce(supervised, reduction="sum")
        batches = [batch | {"num_items_in_batch": items / pieces} for batch in batches]
    total = torch.zeros((), device=device)
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        accelerator.gradient_state._set_sync_gradients(last)
        with nullcontext() if last else accelerator.no_sync(model):
            value = loss(model, batch)
            accelerator.backward(value / len(batches))
        total += value.detach() / len(batches)
    norm = accelerator.clip_grad_norm_(parameters, stage.clip)
    if accelerator.num_processes > 1:
        total = accelerator.reduce(total, reduction="mean")
    return total.item(), 0.0 if norm is None else float(norm)


def apply(optimizers: list[Any]) -> None:
    """Move the weights by their gradients."""
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
