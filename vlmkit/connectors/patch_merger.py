"""Patch merger: a norm over every patch, r x r neighbours become one token, then two linear layers.

The merger of Qwen2-VL (Wang et al. 2024, arXiv:2409.12191): LayerNorm -> 2x2 -> Linear -> GELU -> Linear, the first layer as wide as
the merged token. Grid (F, H, W) -> (F, H/r, W/r). From 1280 to 3584 channels it has 44,575,744 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.activations import Activation
from vlmkit.connectors import connectors
from vlmkit.connectors.block_connector import BlockConnector
from vlmkit.spec import SpecError


@connectors.register("patch_merger")
@dataclass(frozen=True, kw_only=True)
class PatchMerger(BlockConnector):
    """LayerNorm -> space to depth -> Linear -> activation -> Linear."""

    norm_eps: float = 1e-6
    """Epsilon of the LayerNorm, which stands before patches are merged."""
    activation: Activation = "gelu"
    """Between the two linear layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm_eps <= 0:
            raise SpecError(f"patch_merger.norm_eps: expected more than 0, got {self.norm_eps}")
