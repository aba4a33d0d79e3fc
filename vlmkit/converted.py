"""The weights of a transformers model, read from its files under the names that it has in memory.

What is merely renamed is read slice by slice. What is converted is read whole with everything that it is made of, one group (such as the
experts of one layer) at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vlmkit.differences import some
from vlmkit.matched import Group, Matched, ignored
from vlmkit.spec import SpecError
from vlmkit.stored import Stored, refuse_outside


class Converted(Matched):
    """What is stored under the model's names. A WeightSource (vlmkit/sliced.py) of the model's state dict."""

    def __init__(self, model: Any, stored: Stored, origin: str, key_mapping: Mapping[str, str] | None = None) -> None:
        """model: a transformers model, on whichever device; its weights are not looked at. origin: what messages call the files.
        key_mapping: as from_pretrained takes it. Raises SpecError listing what is missing, unexpected or of another shape."""
        super().__init__(model, stored, key_mapping)
        self.stored, self.origin = stored, origin
        self.tied: dict[str, str] = {}
        self._made: tuple[Group, dict[str, Tensor]] | None = None
        self._alias(self.found)
        wrong = {
            "missing keys": [name for name in self.own if name not in self.found],
            "unexpected keys": [name for name in self.unexpected if not ignored(model, name)],
            "mismatched keys": self.mismatched(),
            "whole numbers": self.whole_numbers(),
        }
        refuse(origin, wrong)

    @property
    def converted(self) -> tuple[str, ...]:
        """Weights of which no slice can be read without reading all that their group is made of."""
        return tuple(self.group_of)

    def names(self) -> tuple[str, ...]:
        return tuple(self.own)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.own[name].shape)

    def read(self, name: str, start: int, length: int) -> Tensor:
        """(length,): values [start, start + length) of the flattened weight, in the stored dtype. Raises IndexError outside of it."""
        refuse_outside(name, self.shape(name), start, length)
        name = self.tied.get(name, name)
        if name in self.renamed:
            return self.stored.read(self.renamed[name], start, length)
        return self._make(self.group_of[name])[name].view(-1)[start : start + length].clone()

    def _alias(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """A weight that is tied to one that is stored is read from there. Raises SpecError where both are stored and are not the same."""
        known: dict[int, str] = {}
        for name in sorted(self.own, key=lambda each: each not in shapes):  # those that are stored first
            other = known.setdefault(id(self.own[name]), name)
            if other == name or other not in shapes:
                continue
            if name in self.renamed and other in self.renamed:
                if not same(self.stored, self.renamed[name], self.renamed[other]):
                    raise SpecError(
                        f"{self.origin}: {name} and {other} are tied in the config, but stored with different values; set "
                        "tie_word_embeddings=False in the language model's config"
                    )
            elif name not in shapes:
                shapes[name], self.tied[name] = shapes[other], other

    def _make(self, group: Group) -> dict[str, Tensor]:
        """The weights of a group; the last one is kept, for slices are read one after the other."""
        if self._made is None or self._made[0] is not group:
            self._made = None
            self._made = group, self.convert(group, {key: self.stored.whole(key) for key, _ in group.sources})
        return self._made[1]


def same(stored: Stored, one: str, other: str, run: int = 1 << 24) -> bool:
    """Whether two stored tensors agree in every value; reads `run` values at a time."""
    total = math.prod(stored.shape(one))
    return stored.shape(one) == stored.shape(other) and all(
        torch.equal(*(stored.read(name, start, min(run, total - start)) for name in (one, other))) for start in range(0, total, run)
    )


def refuse(origin: str, wrong: Mapping[str, list[str]]) -> None:
    """Raise SpecError listing names that do not fit, under what is wrong with them."""
    if any(wrong.values()):
        raise SpecError(f"{origin}: " + "; ".join(f"{what}: {some(names)}" for what, names in wrong.items() if names))
