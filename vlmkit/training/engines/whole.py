"""The whole model in every process: alone, or with torch's DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vlmkit.training.blueprint import Blueprint
from vlmkit.training.engines.base import Reads, Share, fill, whole_shares
from vlmkit.training.engines.torch_engine import TorchEngine
from vlmkit.training.processes import join_alone


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

    def _wrapped(self, model: nn.Module) -> nn.Module:
        join_alone(self.processes.device)
        # A batch without images goes through the tower too, so every parameter that learns has a gradient on every process.
        return DistributedDataParallel(model)

    def _synchronized(self, model: nn.Module, last: bool) -> AbstractContextManager[Any]:
        assert isinstance(model, DistributedDataParallel)
        return nullcontext() if last else model.no_sync()

    def _writes(self, share: Share) -> bool:
        return self.processes.main
