"""The whole model in every process: alone, or with torch's DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vlmkit.training.blueprint import Blueprint
from vlmkit.training.engines.base import Batch, Loss, Optimizers, Reads, Share, fill, whole_shares
from vlmkit.training.engines.torch_engine import TorchEngine
from vlmkit.training.processes import join_alone
from vlmkit.training.stage import Stage


class Single(TorchEngine):
    """One process. The model stays the same object through all stages."""

    name = "single"
    spread = False

    def place(self, blueprint: Blueprint, weights: Reads, prepare: Callable[[nn.Module], None]) -> nn.Module:
        model = blueprint.whole()
        prepare(model)
        # What learns is kept in float32: see Engine.
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else self.dtype)
        model.to(self.processes.device)
        fill(model, whole_shares(model), weights(model))
        return model

    def precision(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.processes.device.type, self.dtype)


class DDP(Single):
    """Every process has the model and its own batches; gradients are averaged while the backward pass goes on."""

    name = "ddp"

    def begin(self, stage: Stage, model: nn.Module, optimizers: Optimizers, head: nn.Module | None = None) -> None:
        super().begin(stage, model, optimizers, head)
        self._head = head

    def backward(self, loss: Loss, batch: Batch, *, part: float, last: bool) -> Tensor:
        value = super().backward(loss, batch, part=part, last=last)
        # A head is no part of the wrapped model.
        for parameter in self._head.parameters() if last and self._head is not None else ():
            if parameter.grad is not None and self.processes.world > 1:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.processes.world
        return value

    def _wrapped(self, model: nn.Module) -> nn.Module:
        join_alone(self.processes.device)
        # A batch without images goes through the tower too, so every parameter that learns has a gradient on every process.
        return DistributedDataParallel(model)

    def _synchronized(self, model: nn.Module, last: bool) -> AbstractContextManager[Any]:
        assert isinstance(model, DistributedDataParallel)
        return nullcontext() if last else model.no_sync()

    def _writes(self, share: Share) -> bool:
        return self.processes.main
