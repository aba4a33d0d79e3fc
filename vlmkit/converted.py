"""The weights of a transformers model, read from its files under the names that it has in memory.

Files of a checkpoint may call weights otherwise, or cut them otherwise: another prefix, one tensor an expert where the model has all of
them in one, a head that is left out because it is tied. transformers' `from_pretrained` knows what each family needs; here its own
tables are asked for it, without loading anything. What is merely renamed is read slice by slice. What is converted is read whole with
everything that it is made of, one group (such as the experts of one layer) at a time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlmkit.build import some
from vlmkit.spec import SpecError
from vlmkit.stored import Stored, refuse_outside


class Group(NamedTuple):
    """Weights that transformers makes together."""

    converter: Any
    first: str
    """transformers' name for the group: that of the first weight that it makes."""
    sources: list[tuple[str, str]]
    """Stored names, each with the pattern that it matched, in the order in which transformers takes them."""


class Converted:
    """What is stored under the model's names. A WeightSource (vlmkit/sliced.py) of the model's state dict."""

    def __init__(self, model: Any, stored: Stored, origin: str, key_mapping: Mapping[str, str] | None = None) -> None:
        """model: a transformers model, on whichever device; its weights are not looked at. origin: what messages call the files.
        key_mapping: as from_pretrained takes it. Raises SpecError listing what is missing, unexpected or of another shape."""
        self.model, self.stored, self.origin = model, stored, origin
        self.own: dict[str, Tensor] = model.state_dict(keep_vars=True)
        self.renamed: dict[str, str] = {}
        self.group_of: dict[str, Group] = {}
        self.tied: dict[str, str] = {}
        self._made: tuple[Group, dict[str, Tensor]] | None = None
        shapes, unexpected = self._match(key_mapping)
        self._alias(shapes)
        wrong = {
            "missing keys": [name for name in self.own if name not in shapes],
            "unexpected keys": [name for name in unexpected if not ignored(model, name)],
            "mismatched keys": [
                f"{name} {shape}, expected {tuple(self.own[name].shape)}"
                for name, shape in shapes.items()
                if name in self.own and shape != tuple(self.own[name].shape)
            ],
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

    def _match(self, key_mapping: Mapping[str, str] | None) -> tuple[dict[str, tuple[int, ...]], list[str]]:
        """Fill `renamed` and `group_of`; the shape of everything that was found, and names that the model does not have.

        As transformers' convert_and_load_state_dict_in_model does it, which cannot be asked without loading.
        """
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

        mapping = get_model_conversion_mapping(self.model, None if key_mapping is None else dict(key_mapping))
        renamings = [each for each in mapping if isinstance(each, WeightRenaming)]
        converters = [each for each in mapping if isinstance(each, WeightConverter)]
        by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
        prefix, own = self.model.base_model_prefix, self.own
        groups: dict[str, Group] = {}
        unexpected = []
        for key in sorted(self.stored.names(), key=dot_natural_key):
            name, pattern = rename_source_key(key, renamings, converters, prefix, own)
            if name not in own and key in own:
                name, pattern = rename_source_key(key, [], [], prefix, own)
            if name not in own:
                unexpected.append(name)
            elif pattern is None:
                self.renamed[name] = key
            else:
                groups.setdefault(name, Group(by_pattern[pattern], name, [])).sources.append((key, pattern))
        shapes = {name: self.stored.shape(key) for name, key in self.renamed.items()}
        for group in groups.values():
            with torch.device("meta"):
                outcome = self._convert(group, {key: torch.empty(self.stored.shape(key)) for key, _ in group.sources})
            for name, value in outcome.items():
                shapes[name] = tuple(value.shape)
                self.group_of[name] = group
            unexpected += [name for name in outcome if name not in own]
        return shapes, unexpected

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
            self._made = group, self._convert(group, {key: self.stored.whole(key) for key, _ in group.sources})
        return self._made[1]

    def _convert(self, group: Group, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        converter = deepcopy(group.converter)
        for key, pattern in group.sources:
            converter.add_tensor(group.first, key, pattern, tensors[key])
        made = converter.convert(group.first, model=self.model, config=self.model.config)
        return {name: (value[0] if isinstance(value, list) else value).contiguous() for name, value in made.items()}


def same(stored: Stored, one: str, other: str, run: int = 1 << 24) -> bool:
    """Whether two stored tensors agree in every value; reads `run` values at a time."""
    total = math.prod(stored.shape(one))
    return stored.shape(one) == stored.shape(other) and all(
        torch.equal(*(stored.read(name, start, min(run, total - start)) for name in (one, other))) for start in range(0, total, run)
    )


MOVED = {"rotary_emb.inv_freq": r"rotary_emb\.inv_freq", "position_ids": r"(^|\.)position_ids$"}
"""Ends of names of buffers that old checkpoints hold, elsewhere in the model, and where they are found."""


def ignored(model: Any, name: str) -> bool:
    """Whether transformers leaves out what is stored under this name: buffers that once were, and what its class lists."""
    buffers = [buffer for buffer, _ in model.named_buffers()]
    moved = [pattern for end, pattern in MOVED.items() if any(buffer.endswith(end) for buffer in buffers)]
    return any(re.search(pattern, name) for pattern in (*moved, *(model._keys_to_ignore_on_load_unexpected or ())))


def refuse(origin: str, wrong: Mapping[str, list[str]]) -> None:
    """Raise SpecError listing names that do not fit, under what is wrong with them."""
    if any(wrong.values()):
        raise SpecError(f"{origin}: " + "; ".join(f"{what}: {some(names)}" for what, names in wrong.items() if names))
