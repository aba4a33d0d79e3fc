"""Weights of published checkpoints into a tower, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vlmkit.hub import refuse_unreachable
from vlmkit.spec import SpecError


def fill(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a module, in the module's dtype and on its device (a module on meta takes them as they are).

    Raises SpecError listing every name that is missing, unknown, of another shape, or stored as whole numbers.
    """
    own = module.state_dict()
    problems = [f"missing {name} {tuple(own[name].shape)}" for name in own if name not in weights]
    problems += [f"unknown {name} {tuple(weights[name].shape)}" for name in weights if name not in own]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, the tower has {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:20]) + (f"; and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise SpecError(f"the weights of {source} do not fit the tower: {shown}")
    refuse_whole_numbers(own, weights, source)
    on_meta = any(value.is_meta for value in own.values())
    module.load_state_dict({name: value.to(own[name].dtype) for name, value in weights.items()}, assign=on_meta)


def refuse_whole_numbers(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str) -> None:
    """Raise SpecError for whole numbers under the names of floating ones: torch would take them for the values."""
    for name, value in weights.items():
        if name in own and own[name].is_floating_point() and not value.is_floating_point():
            raise SpecError(
                f"the weights of {source} do not fit the tower: {name} is stored as whole numbers ({value.dtype}); save them unquantised"
            )


def fill_from_transformers(
    module: nn.Module,
    cls: Any,
    checkpoint: str | None,
    numbers: Mapping[str, Any],
    *,
    kind: str,
    key_mapping: dict[str, str] | None = None,
    needs: Callable[[str], bool] = lambda name: True,
) -> None:
    """Fill the tower of an encoder `kind` from a checkpoint of transformers' vision model `cls`, by its from_pretrained. A local
    directory was run; the hub never was: no network.

    numbers: what the config has to say, by name. key_mapping: as transformers takes it. needs: which weights the tower has. Raises
    SpecError listing what differs or is missing.
    """
    if checkpoint is None:
        raise SpecError(f"{kind}.checkpoint: no checkpoint is named; set it to a name on the hub or a local directory")
    from vlmkit.checkpoint_weights import read_model

    refuse_unreachable(checkpoint, "config.json")
    with torch.device("cpu"):
        published, report = read_model(cls, checkpoint, dtype="auto", key_mapping=key_mapping)
    found = {name: getattr(published.config, name) for name in numbers}
    wrong = [f"{name} is {found[name]!r}, the spec says {said!r}" for name, said in numbers.items() if found[name] != said]
    wrong += [f"missing {name}" for name in sorted(report["missing_keys"]) if needs(name.removeprefix("vision_model."))]
    if wrong:
        raise SpecError(f"the checkpoint {checkpoint} does not fit the encoder {kind!r}: {'; '.join(wrong)}")
    weights = getattr(published, "vision_model", published).state_dict()
    fill(module, {name: value for name, value in weights.items() if needs(name)}, checkpoint)
