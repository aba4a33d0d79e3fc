"""torch's fully_shard (FSDP2): each process holds a share of the rows of every parameter, and gathers a block at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from vlmkit.training.blueprint import Blueprint
from vlmkit.training.engines.base import Reads, Share, blocks_of, fill, local
from vlmkit.training.engines.torch_engine import TorchEngine
from vlmkit.training.processes import join_alone

Made = dict[int, tuple[nn.Parameter, nn.Parameter]]
"""By the id of a parameter without memory: that parameter, so that the id stays its own, and the one that took its place."""


class FSDP2(TorchEngine):
    """Weights, gradients and optimizer states are spread; a block is whole only while it computes. The model is never whole on any
    process: blocks are made, cut and dropped one after the other."""

    name = "fsdp2"
    spread = True

    def place(self, blueprint: Blueprint, weights: Reads, prepare: Callable[[nn.Module], None]) -> nn.Module:
        join_alone(self.processes.device)
        model = blueprint.skeleton()
        prepare(model)
        read = weights(model)
        made: Made = {}
        for unit in units(model):
            _materialize(unit, self._kept_in(unit), self.processes.device, made)
            fully_shard(unit, mp_policy=self._policy(root=unit is model))
        self.shares = self._shares(model)
        fill(model, self.shares, read)
        return model

    def _kept_in(self, unit: nn.Module) -> torch.dtype:
        """fully_shard takes one precision for all of a unit: float32 where anything in it learns."""
        own = [parameter for parameter in unit.parameters() if parameter.is_meta]
        return torch.float32 if any(parameter.requires_grad for parameter in own) else self.dtype

    def _policy(self, *, root: bool) -> MixedPrecisionPolicy:
        if self.dtype == torch.float32:
            return MixedPrecisionPolicy()
        return MixedPrecisionPolicy(param_dtype=self.dtype, reduce_dtype=torch.float32, cast_forward_inputs=not root)

    def _synchronized(self, model: nn.Module, last: bool) -> AbstractContextManager[Any]:
        assert isinstance(model, FSDPModule)
        model.set_requires_gradient_sync(last)
        return nullcontext()

    def settle(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _shares(self, model: nn.Module) -> list[Share]:
        return [self._share(name, parameter) for name, parameter in model.named_parameters()]

    def _share(self, name: str, parameter: nn.Parameter) -> Share:
        rows = -(-parameter.shape[0] // self.processes.world)  # as torch.chunk cuts the first dimension
        start = min(rows * self.processes.rank, parameter.shape[0]) * math.prod(parameter.shape[1:])
        return Share(name, tuple(parameter.shape), start, local(parameter.detach()).view(-1), key=parameter)


def units(model: nn.Module) -> Iterator[nn.Module]:
    """What is gathered at once, from the inside out: blocks, the other modules of the fusion, towers, parts, and what is left."""
    fusion = getattr(model, "fusion", None)
    inside = [module for module in fusion.children() if not isinstance(module, nn.ModuleList)] if fusion is not None else []
    towers = list(getattr(model, "towers", ()))
    parts = [part for part in (*towers, getattr(model, "connector", None), fusion) if part is not None]
    seen: set[int] = set()
    for unit in (*blocks_of(model), *inside, *parts, model):
        if id(unit) not in seen and next(unit.parameters(), None) is not None:
            seen.add(id(unit))
            yield unit


def _materialize(unit: nn.Module, dtype: torch.dtype, device: torch.device, made: Made) -> None:
    """Memory for the parameters of a unit that have none yet. `made`: tied parameters stay one."""
    for module in unit.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                if id(parameter) not in made:
                    kept = dtype if parameter.is_floating_point() else parameter.dtype
                    empty = torch.empty_like(parameter, dtype=kept, device=device)
                    made[id(parameter)] = parameter, nn.Parameter(empty, parameter.requires_grad)
                module._parameters[name] = made[id(parameter)][1]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
