"""What is stored under the names that files give it, beside the weights of a transformers model, under the names that it has in memory.

Files of a checkpoint may call weights otherwise, or cut them otherwise: another prefix, one tensor an expert where the model has all of
them in one, a head that is left out because it is tied. transformers' `from_pretrained` knows what each family needs; here its own
tables are asked for it, without loading anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Listed(Protocol):
    """Tensors of files, of which no value is read."""

    def names(self) -> tuple[str, ...]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> torch.dtype: ...


class Group(NamedTuple):
    """Weights that transformers makes together."""

    converter: Any
    first: str
    """transformers' name for the group: that of the first weight that it makes."""
    sources: list[tuple[str, str]]
    """Stored names, each with the pattern that it matched, in the order in which transformers takes them."""


class Matched:
    """Names and shapes alone: the model may be on the meta device, and the tensors in files."""

    def __init__(self, model: Any, stored: Listed, key_mapping: Mapping[str, str] | None = None) -> None:
        """model: a transformers model; its weights are not looked at. key_mapping: as from_pretrained takes it."""
        self.model = model
        self.own: dict[str, Tensor] = model.state_dict(keep_vars=True)
        self.renamed: dict[str, str] = {}
        """The model's names -> those of files, where they differ by name alone."""
        self.group_of: dict[str, Group] = {}
        self.listed = stored
        self.found, self.unexpected = self._match(key_mapping)
        """The stored shape of everything that was found, by the model's names; and names that the model does not have."""

    def mismatched(self) -> list[str]:
        """Weights of another shape than the model's, with both."""
        return [
            f"{name} {shape}, expected {tuple(self.own[name].shape)}"
            for name, shape in self.found.items()
            if name in self.own and shape != tuple(self.own[name].shape)
        ]

    def whole_numbers(self) -> list[str]:
        """Weights that are stored as whole numbers: torch would take them for the values. Buffers such as position_ids are whole numbers
        by right."""
        made_of: dict[str, tuple[str, ...]] = {name: (key,) for name, key in self.renamed.items()}
        made_of |= {name: tuple(key for key, _ in group.sources) for name, group in self.group_of.items()}
        return [
            f"{key} ({str(self.listed.dtype(key)).removeprefix('torch.')})"
            for name, keys in made_of.items()
            if name in self.own and self.own[name].is_floating_point()
            for key in keys
            if not self.listed.dtype(key).is_floating_point
        ]

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
        for key in sorted(self.listed.names(), key=dot_natural_key):
            name, pattern = rename_source_key(key, renamings, converters, prefix, own)
            if name not in own and key in own:
                name, pattern = rename_source_key(key, [], [], prefix, own)
            if name not in own:
                unexpected.append(name)
            elif pattern is None:
                self.renamed[name] = key
            else:
                groups.setdefault(name, Group(by_pattern[pattern], name, [])).sources.append((key, pattern))
        shapes = {name: self.listed.shape(key) for name, key in self.renamed.items()}
        for group in groups.values():
            with torch.device("meta"):
                outcome = self.convert(group, {key: torch.empty(self.listed.shape(key)) for key, _ in group.sources})
            for name, value in outcome.items():
                shapes[name] = tuple(value.shape)
                self.group_of[name] = group
            unexpected += [name for name in outcome if name not in own]
        return shapes, unexpected

    def convert(self, group: Group, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        converter = deepcopy(group.converter)
        for key, pattern in group.sources:
            converter.add_tensor(group.first, key, pattern, tensors[key])
        made = converter.convert(group.first, model=self.model, config=self.model.config)
        return {name: (value[0] if isinstance(value, list) else value).contiguous() for name, value in made.items()}


MOVED = {"rotary_emb.inv_freq": r"rotary_emb\.inv_freq", "position_ids": r"(^|\.)position_ids$"}
"""Ends of names of buffers that old checkpoints hold, elsewhere in the model, and where they are found."""


def ignored(model: Any, name: str) -> bool:
    """Whether transformers leaves out what is stored under this name: buffers that once were, and what its class lists."""
    buffers = [buffer for buffer, _ in model.named_buffers()]
    moved = [pattern for end, pattern in MOVED.items() if any(buffer.endswith(end) for buffer in buffers)]
    return any(re.search(pattern, name) for pattern in (*moved, *(model._keys_to_ignore_on_load_unexpected or ())))
