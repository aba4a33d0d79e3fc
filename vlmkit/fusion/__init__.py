"""Fusion: how visual tokens meet the language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmkit.registry import Registry

if TYPE_CHECKING:
    from vlmkit.fusion.base import Fusion

fusions: Registry[Fusion] = Registry("fusion", package=__name__, builtin=("cross_attention", "hybrid", "prefix", "scatter_add", "splice"))
