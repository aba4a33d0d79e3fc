"""Weights that a tower keeps for the sake of its checkpoint alone: no feature depends on them, so nothing trains them."""

from __future__ import annotations

from torch import nn


def freeze_unused(module: nn.Module) -> None:
    """Freeze what towers inside of `module` say is `unused`: blocks above the last selected layer, norms that are not applied."""
    for tower in module.modules():
        unused = getattr(tower, "unused", None)
        for kept in unused() if callable(unused) else ():
            kept.requires_grad_(False)
