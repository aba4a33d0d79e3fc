"""The state of a run in one file: weights, optimisers, random numbers and position. Safetensors, never pickle.

A new state is written beside the old one, brought to the disk and then renamed over it: whenever the process or the
machine dies, the file that is there is a whole one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vlmkit.files import commit, partial
from vlmkit.renamed import todays
from vlmkit.training.run import RunError

SCHEMA = 1


class StateError(RunError, ValueError):
    """A state that cannot be continued from."""


def save_state(path: Path, modules: Mapping[str, nn.Module], optimizers: list[torch.optim.Optimizer], position: Mapping[str, Any]) -> None:
    """Write everything that the rest of the run depends on. `position` is what the caller wants to find again: plain JSON."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors |= {f"{name}.{key}": value for key, value in _own_tensors(module).items()}
    scalars: dict[str, Any] = {}
    for number, optimizer in enumerate(optimizers):
        for parameter, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                place = f"optimizer.{number}.{parameter}.{key}"
                if isinstance(value, Tensor):
                    tensors[place] = value
                else:
                    scalars[place] = value
    tensors["random.torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    kind, keys, *rest = np.random.get_state(legacy=True)
    header = {
        "schema": SCHEMA,
        "position": dict(position),
        "optimizer": scalars,
        "random": {"python": random.getstate(), "numpy": [kind, np.asarray(keys).tolist(), *rest]},
    }
    write_tensors(path, {key: value.detach().contiguous() for key, value in tensors.items()}, {"state": json.dumps(header)})


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    save_file(tensors, partial(path), metadata)
    commit(partial(path), path)


class State:
    """A saved state, read part by part."""

    def __init__(self, path: Path) -> None:
        """Raises StateError for a file that is not a whole state of a version that is known here."""
        self.path = path
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["state"])
                self._names = frozenset(file.keys())
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise StateError(f"{path} is not a saved training state ({error})") from None
        if header.get("schema") != SCHEMA:
            raise StateError(f"{path} has schema {header.get('schema')!r}, this vlmkit reads {SCHEMA}")
        self.position: dict[str, Any] = header["position"]
        self._scalars: dict[str, Any] = header["optimizer"]
        self._random: dict[str, Any] = header["random"]

    def load_module(self, name: str, module: nn.Module) -> None:
        """Fill a module in place. Raises StateError naming what is missing, unknown or of another shape."""
        own = _own_tensors(module)
        saved = {todays(key.removeprefix(f"{name}.")): key for key in self._names if key.startswith(f"{name}.")}
        if own.keys() != saved.keys():
            raise StateError(f"{self.path}: {name} does not fit; differing: {', '.join(sorted(own.keys() ^ saved.keys())[:10])}")
        with safe_open(self.path, framework="pt") as file, torch.no_grad():
            for key, target in own.items():
                value = file.get_tensor(saved[key])
                if value.shape != target.shape:
                    raise StateError(f"{self.path}: {name}.{key} is {tuple(value.shape)}, the module has {tuple(target.shape)}")
                target.copy_(value)

    def load_optimizers(self, optimizers: list[torch.optim.Optimizer]) -> None:
        """Fill the optimisers' moments; rates follow from the stage and the step, and are not stored."""
        found: list[dict[int, dict[str, Any]]] = [{} for _ in optimizers]
        with safe_open(self.path, framework="pt") as file:
            for place in sorted(name for name in self._names if name.startswith("optimizer.")):
                _, number, parameter, key = place.split(".", 3)
                # A copy: what the file hands out need not be aligned as torch aligns, and kernels may care.
                found[int(number)].setdefault(int(parameter), {})[key] = file.get_tensor(place).clone()
        for place, value in self._scalars.items():
            _, number, parameter, key = place.split(".", 3)
            found[int(number)].setdefault(int(parameter), {})[key] = value
        for optimizer, state in zip(optimizers, found, strict=True):
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    def restore_random(self) -> None:
        """Set the generators of torch, Python and NumPy back to where they were."""
        with safe_open(self.path, framework="pt") as file:
            torch.set_rng_state(file.get_tensor("random.torch"))
            if "random.cuda" in self._names and torch.cuda.is_available():
                torch.cuda.set_rng_state(file.get_tensor("random.cuda"))
        version, internal, gauss = self._random["python"]
        random.setstate((version, tuple(internal), gauss))
        kind, keys, *rest = self._random["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, a tied one under its first name only."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor) and id(value) not in seen:
            seen.add(id(value))
            found[name] = value
    return found
