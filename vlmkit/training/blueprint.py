"""What a model is made from, for engines that never hold it whole: its skeleton, and where its weights are read."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from vlmkit.architecture import Architecture

if TYPE_CHECKING:
    from vlmkit.model import VLM


class Weights(Protocol):
    """Where values of parameters are read from, in runs of the flattened tensor."""

    def names(self) -> frozenset[str]:
        """Of the parameters that are there."""

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(self, name: str, start: int, length: int) -> Tensor:
        """Values `start` to `start + length` of the flattened parameter: (length,), in the dtype in which they are stored."""


class Blueprint(Protocol):
    """Makes a model and names its weights."""

    def skeleton(self) -> nn.Module:
        """The modules with parameters on the meta device and real buffers."""

    def weights(self) -> Weights:
        """Those from before the first stage."""

    def whole(self) -> nn.Module:
        """The model with its weights, in this process."""


class ModuleWeights:
    """The parameters of a module that is here."""

    def __init__(self, module: nn.Module) -> None:
        self._parameters = {name: value.detach() for name, value in module.named_parameters(remove_duplicate=False)}

    def names(self) -> frozenset[str]:
        return frozenset(self._parameters)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._parameters[name].shape)

    def read(self, name: str, start: int, length: int) -> Tensor:
        return self._parameters[name].reshape(-1)[start : start + length]


class OfModule:
    """A model that was made already; every process holds it, so it has to fit."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def skeleton(self) -> nn.Module:
        memo: dict[int, Any] = {
            id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
            for parameter in self.module.parameters()
        }
        return copy.deepcopy(self.module, memo)

    def weights(self) -> Weights:
        return ModuleWeights(self.module)

    def whole(self) -> nn.Module:
        return self.module


class OfArchitecture:
    """A model of parts that nobody has built yet: spread engines build its skeleton, and each process reads its own share.

    weights: as `vlmkit.build` takes them. changed: what is done to random weights before they are trained.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        weights: str | os.PathLike[str] | None = None,
        seed: int = 0,
        dtype: str = "float32",
        changed: Callable[[VLM], None] | None = None,
    ) -> None:
        self.architecture, self.seed, self.dtype = architecture, seed, dtype
        self._weights = weights
        self._changed = changed

    def skeleton(self) -> nn.Module:
        from vlmkit.skeleton import skeleton

        return skeleton(self.architecture, dtype=self.dtype)

    def weights(self) -> Weights:
        from vlmkit.sliced import PublishedWeights, SavedWeights

        if self._weights is None:
            # Random weights are drawn in order, so whoever draws some draws all: such models are small.
            return ModuleWeights(self.whole())
        if os.fspath(self._weights) == "pretrained":
            return PublishedWeights(self.architecture, seed=self.seed)
        return SavedWeights(self._weights)

    def whole(self) -> nn.Module:
        import vlmkit

        model = vlmkit.build(self.architecture, dtype=self.dtype, weights=self._weights, seed=self.seed)
        if self._weights is None and self._changed is not None:
            self._changed(model)
        return model
