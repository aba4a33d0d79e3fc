"""The weights that a directory's files hold, beside those that a model of its config has: compared before anything is allocated.

transformers makes and draws what files do not hold, and says afterwards what was missing: a config of a few bytes may state layers that
no machine has room for. Here only the headers of files are read, and the model is made without values.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlmkit.checkpoint_files import DamagedCheckpointError
from vlmkit.differences import some
from vlmkit.matched import Listed, Matched
from vlmkit.stored import Stored, files_of

LARGEST_MADE = 512 << 20
"""Bytes of weights and tables that may be made where no file holds them; as many as the files have, where that is more."""


def read_model(
    cls: Any, directory: str | os.PathLike[str], *, config: Any = None, key_mapping: Mapping[str, str] | None = None, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """What `cls.from_pretrained` of transformers gives with its report, of files that fit the model of the config. A name on a hub is
    transformers' to fetch, and only what it finds is compared.

    Raises DamagedCheckpointError for weights of another shape and for whole numbers in their place, listing them, and for a model that
    is larger than its files.
    """
    if os.path.isdir(directory):
        refuse_unfit(cls, Path(directory), cls.config_class.from_pretrained(directory) if config is None else config, key_mapping)
    options |= {} if config is None else {"config": config}
    options |= {} if key_mapping is None else {"key_mapping": dict(key_mapping)}
    read: tuple[Any, dict[str, Any]] = cls.from_pretrained(directory, output_loading_info=True, **options)
    return read


def refuse_unfit(cls: Any, directory: Path, config: Any, key_mapping: Mapping[str, str] | None = None) -> None:
    """Raise DamagedCheckpointError where the model of this config is not the one that the directory's files hold."""
    if (stored := listed_in(directory)) is None:
        return  # transformers says which names it looks for
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = cls(deepcopy(config))
    matched = Matched(model, stored, key_mapping)
    if mismatched := matched.mismatched():
        raise DamagedCheckpointError(
            f"{directory}: config.json is not of these weights: mismatched keys: {some(mismatched)}; fetch both from one place"
        )
    if whole := matched.whole_numbers():
        raise DamagedCheckpointError(
            f"{directory}: stored as whole numbers, expected floating ones: {some(whole)}; save the weights unquantised"
        )
    refuse_larger(directory, matched, stored)


def refuse_larger(directory: Path, matched: Matched, stored: Listed) -> None:
    """Raise DamagedCheckpointError where far more would be made than read. What is missing, each family names by its own rules."""
    held = {id(matched.own[name]) for name in matched.found if name in matched.own}  # a tied weight is stored once
    made = {name: value for name, value in matched.own.items() if id(value) not in held}
    made |= dict(matched.model.named_non_persistent_buffers())
    size = sum(value.numel() * value.element_size() for value in made.values())
    most = max(LARGEST_MADE, sum(math.prod(stored.shape(name)) * stored.dtype(name).itemsize for name in stored.names()))
    if size > most:
        name = max(made, key=lambda each: made[each].numel())
        raise DamagedCheckpointError(
            f"{directory}: config.json states {size:,} bytes that no file holds, such as {name} {tuple(made[name].shape)}; expected at "
            f"most {most:,}; fetch config.json and weights from one place"
        )


class Pickled:
    """The tensors of files that torch pickled: names, shapes and types. Nothing else that lies there is read, and nothing is run."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.tensors: dict[str, Tensor] = {}
        for path in files:
            try:
                found = torch.load(path, map_location="meta", weights_only=True)
            except Exception:
                # torch's own words ask for weights_only=False, which would run what lies in the file.
                raise DamagedCheckpointError(
                    f"{path} cannot be read: it holds more than tensors, or is cut; nothing of it was run; fetch or write it again"
                ) from None
            if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
                raise DamagedCheckpointError(f"{path} cannot be read: expected tensors by their names; fetch or write it again")
            self.tensors |= found

    def names(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self.tensors[name].dtype


def listed_in(directory: Path) -> Stored | Pickled | None:
    """What the files hold that transformers would read; None where there are none."""
    if files := files_of(directory):
        return Stored(files)
    one, index = directory / "pytorch_model.bin", directory / "pytorch_model.bin.index.json"
    if one.is_file():
        return Pickled([one])
    if not index.is_file():
        return None
    return Pickled(directory / name for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())))
