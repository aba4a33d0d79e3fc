"""What the loop is given of an objective: a loss of a model and a batch, and a module that learns beside the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Task(ABC):
    head: nn.Module | None = None
    """Learns at the rate `stage.head`, on the engines that hold the model whole; the stage's state holds it. None: nothing does."""

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """The mean loss of a batch. The model may be one that DDP wrapped."""


def unwrapped(model: Any) -> Any:
    """The VLM inside of DDP's wrapper, for its parts. Its forward pass has to be called on the wrapper."""
    return getattr(model, "module", model)


def drawn(seed: int, make: Any) -> Any:
    """What a function makes of random numbers that follow from the seed; the caller's stay where they are."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()
