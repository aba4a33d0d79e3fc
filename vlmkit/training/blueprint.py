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
from vlmkit.sliced import fill, weights_of
from vlmkit.spec import SpecError
from vlmkit.training.changed import carried
from vlmkit.weight_source import HeldWeights, WeightSource

if TYPE_CHECKING:
    from vlmkit.model import VLM


class Blueprint(Protocol):
    """Makes a model and names its weights."""

    @property
    def architecture(self) -> Architecture | None:
        """None of a module that is no VLM."""

    def skeleton(self) -> nn.Module:
        """The modules with parameters on the meta device and real buffers."""

    def weights(self) -> WeightSource:
        """Those from before the first stage."""

    def whole(self) -> nn.Module:
        """The model with its weights, in this process."""

    def at(self, architecture: Architecture, seed: int = 0) -> Blueprint:
        """The same model at another resolution, or with experts (vlmkit.training.changed). seed: of routers."""


class OfModule:
    """A model that was made already; every process holds it, so it has to fit."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    def architecture(self) -> Architecture | None:
        spec: Architecture | None = getattr(getattr(self.module, "config", None), "spec", None)
        return spec

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

    def at(self, architecture: Architecture, seed: int = 0) -> Blueprint:
        return Resized(self, architecture, str(getattr(self.module, "dtype", torch.float32)).removeprefix("torch."), seed)


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

    def at(self, architecture: Architecture, seed: int = 0) -> Blueprint:
        return Resized(self, architecture, self.dtype, seed)


class Resized:
    """A model at another resolution than the one that it was made from, or with experts that it did not have."""

    def __init__(self, before: Blueprint, architecture: Architecture, dtype: str, seed: int = 0) -> None:
        """Raises SpecError for one that is no VLM."""
        if before.architecture is None:
            raise SpecError("only models of an architecture are made at another resolution; leave image_size out")
        self._before, self._of, self.architecture, self.dtype = before, before.architecture, architecture, dtype
        self._seed = seed

    def skeleton(self) -> nn.Module:
        return skeleton(self.architecture, dtype=self.dtype)

    def weights(self) -> WeightSource:
        return carried(self._before.weights(), self._of, self.architecture, self.skeleton(), self._seed)

    def whole(self) -> nn.Module:
        model = self.skeleton()
        fill(model, self.weights())
        return model

    def at(self, architecture: Architecture, seed: int = 0) -> Blueprint:
        return Resized(self, architecture, self.dtype, seed)
