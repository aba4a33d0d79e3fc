"""What gives the weights of a model in runs, wherever they lie.

A source gives the values of a parameter, or of a buffer of the state dict, under the name that it has in the model, in the dtype that it is
stored in; the caller casts. A process that owns a share of a parameter reads that share, and from disk no more than it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from vlmkit.stored import refuse_outside


class WeightSource(Protocol):
    """Parameters and persistent buffers of a model, by the names of its state dict; a tied one has all of its names."""

    def names(self) -> tuple[str, ...]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(self, name: str, start: int, length: int) -> Tensor:
        """(length,): values [start, start + length) of the flattened tensor, in the stored dtype, on the CPU, a copy. Raises IndexError
        outside of it."""
        ...


class HeldWeights:
    """Tensors that are in memory, as a source."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def names(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def read(self, name: str, start: int, length: int) -> Tensor:
        refuse_outside(name, self.shape(name), start, length)
        return self.tensors[name].detach().reshape(-1)[start : start + length].clone()


def values_of(source: WeightSource, name: str) -> Tensor:
    """A whole tensor of a source, in its shape and in the stored dtype."""
    shape = source.shape(name)
    return source.read(name, 0, math.prod(shape)).view(shape)
