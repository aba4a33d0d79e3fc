"""Weights of a plain language model, read as those of the same model with experts: each expert is the FFN that there was."""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vlmkit.experts_module import Mixture
from vlmkit.stored import refuse_outside

if TYPE_CHECKING:
    from vlmkit.weight_source import WeightSource


class Copied:
    """A WeightSource of a model with experts over one of the model without. Where a model has none, it is that one."""

    def __init__(self, weights: WeightSource, model: Any, router: Callable[[str, tuple[int, ...]], Tensor]) -> None:
        """model: the one with experts, on whichever device; its weights are not looked at. router: the weight of a router, by its name and
        shape."""
        self._weights, self._router = weights, router
        self._copied: dict[str, str] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        own = model.state_dict(keep_vars=True)
        for path, mixture in _mixtures(model).items():
            for name, value in mixture.state_dict(keep_vars=True).items():
                self._shapes[f"{path}.{name}"] = tuple(getattr(value, "ds_shape", value.shape))
                if name.startswith("experts."):
                    self._copied[f"{path}.{name}"] = f"{path}.{name.removeprefix('experts.')}"
        gone = set(self._copied.values())
        there = [name for name in weights.names() if name not in gone]
        self._names = tuple(dict.fromkeys((*(name for name in own if name in self._shapes or name in set(there)), *there)))

    def names(self) -> tuple[str, ...]:
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes.get(name) or self._weights.shape(name)

    def read(self, name: str, start: int, length: int) -> Tensor:
        if name not in self._shapes:
            return self._weights.read(name, start, length)
        refuse_outside(name, self._shapes[name], start, length)
        if name not in self._copied:
            return self._router(name, self._shapes[name]).reshape(-1)[start : start + length].clone()
        dense, pieces = self._copied[name], []
        size = math.prod(self._shapes[name][1:])
        while length:
            within = start % size
            piece = min(length, size - within)
            pieces.append(self._weights.read(dense, within, piece))
            start, length = start + piece, length - piece
        return torch.cat(pieces) if pieces else self._weights.read(dense, 0, 0)


def routers_of(model: Any) -> tuple[str, ...]:
    """Names of the routers' weights."""
    return tuple(f"{path}.gate.weight" for path in _mixtures(model))


def drawn(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """A router's weight (E, D), by its name, shape and seed alone, so that each process may draw it: uniform as nn.Linear has it."""
    generator = torch.Generator().manual_seed(int.from_bytes(sha256(f"{seed} {name}".encode()).digest()[:8], "big") >> 1)
    return torch.empty(shape).uniform_(-1, 1, generator=generator) / math.sqrt(shape[1])


def _mixtures(model: Any) -> dict[str, Mixture]:
    return {path: module for path, module in model.named_modules() if isinstance(module, Mixture)}
