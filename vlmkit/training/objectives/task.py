"""What the loop is given of an objective: a loss of a model and a batch, a module that learns beside the model, and a stage's data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from vlmkit.data.mixture import DataSource, Mixture
    from vlmkit.processor import VLMProcessor
    from vlmkit.training.stage import Stage


class Task(ABC):
    head: nn.Module | None = None
    """Learns at the rate `stage.head`, on the engines that hold the model whole; the stage's state holds it. None: nothing does."""

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """The mean loss of a batch. The model may be one that DDP wrapped."""

    @abstractmethod
    def data(self, stage: Stage, sources: Sequence[DataSource], processor: VLMProcessor, seed: int) -> Mixture | Dataset[dict[str, Tensor]]:
        """Micro-batches of a stage from its sources, as `Trainer.train` takes them. Raises DataError for sources that make none."""

    def prepared(self, batch: dict[str, Tensor], number: int) -> dict[str, Tensor]:
        """Micro-batch `number` of the stage, counted over all processes, with what the objective draws for it; still on the CPU."""
        return batch

    def totals(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What sums of the loss are divided by, by the name of an entry. The loop adds them up over the micro-batches of an update, and
        hands each its equal part of the sum. The same names for every batch."""
        return {}


def unwrapped(model: Any) -> Any:
    """The VLM inside of DDP's wrapper, for its parts. Its forward pass has to be called on the wrapper."""
    return getattr(model, "module", model)


def drawn(seed: int, make: Any) -> Any:
    """What a function makes of random numbers that follow from the seed; the caller's stay where they are."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()
