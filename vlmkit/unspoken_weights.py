"""Weights of a published language model with rows of what is read and never said behind those of its embedding."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vlmkit.stored import refuse_outside

if TYPE_CHECKING:
    from vlmkit.language_model import LanguageModel
    from vlmkit.weight_source import WeightSource


class WithUnspoken:
    """A WeightSource over that of the model without."""

    def __init__(self, weights: WeightSource, described: LanguageModel, model: Any) -> None:
        """model: the one without, on whichever device; its weights are not looked at."""
        embedding = model.get_input_embeddings()
        self._weights = weights
        self._name = next(f"{name}.weight" for name, module in model.named_modules() if module is embedding)
        self._rows: Tensor = described.unspoken_rows(embedding.embedding_dim)

    def names(self) -> tuple[str, ...]:
        return self._weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        shape = self._weights.shape(name)
        return (shape[0] + len(self._rows), *shape[1:]) if name == self._name else shape

    def read(self, name: str, start: int, length: int) -> Tensor:
        if name != self._name:
            return self._weights.read(name, start, length)
        refuse_outside(name, self.shape(name), start, length)
        stored = math.prod(self._weights.shape(name))
        first, end = min(start, stored), min(start + length, stored)
        own = self._weights.read(name, first, end - first)
        behind = self._rows.view(-1)[max(start - stored, 0) : max(start + length - stored, 0)]
        return torch.cat([own, behind.to(own.dtype)])
