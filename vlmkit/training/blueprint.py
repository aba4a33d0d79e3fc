"""What a model is made from, for engines that never hold it whole: its skeleton, and where its weights are read."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from vlmkit.architecture import Architecture
from vlmkit.build import build
from vlmkit.skeleton import skeleton
from vlmkit.sliced import HeldWeights, WeightSource, weights_of

if TYPE_CHECKING:
    from vlmkit.model import VLM


class Blueprint(Protocol):
    """Makes a model and names its weights."""

    def skeleton(self) -> nn.Module:
        """The modules with parameters on the meta device and real buffers."""

    def weights(self) -> WeightSource:
        """Those from before the first stage."""

    def whole(self) -> nn.Module:
        """The model with its weights, in this process."""


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

    def weights(self) -> WeightSource:
        return HeldWeights(self.module.state_dict())

    def whole(self) -> nn.Module:
        return self.module


class OfArchitecture:
    """A model of parts that nobody has built yet: spread engines build its skeleton, and each process reads its own share.

    weights: as `vlmkit.build` takes them. changed: what is done to random weights before they are trained. prepared:
    what is done to any model of it that has been made, such as a choice of its attention.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        weights: str | os.PathLike[str] | None = None,
        seed: int = 0,
        dtype: str = "float32",
        changed: Callable[[VLM], None] | None = None,
        prepared: Callable[[VLM], None] | None = None,
    ) -> None:
        self.architecture, self.seed, self.dtype = architecture, seed, dtype
        self._weights = weights
        self._changed, self._prepared = changed, prepared

    def skeleton(self) -> nn.Module:
        model = skeleton(self.architecture, dtype=self.dtype)
        if self._prepared is not None:
            self._prepared(model)
        return model

    def weights(self) -> WeightSource:
        if self._weights is None and self._changed is not None:
            return HeldWeights(self.whole().state_dict())
        return weights_of(self.architecture, self._weights, seed=self.seed, dtype=self.dtype)

    def whole(self) -> nn.Module:
        model = build(self.architecture, dtype=self.dtype, weights=self._weights, seed=self.seed)
        if self._weights is None and self._changed is not None:
            self._changed(model)
        if self._prepared is not None:
            self._prepared(model)
        return model
