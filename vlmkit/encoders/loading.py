"""Weights of published checkpoints into a tower, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from vlmkit.spec import SpecError


def fill(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a module, in the module's dtype and on its device (a module on meta takes them as they are).

    Raises SpecError listing every name that is missing, unknown or of another shape.
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
    on_meta = any(value.is_meta for value in own.values())
    module.load_state_dict({name: value.to(own[name].dtype) for name, value in weights.items()}, assign=on_meta)
