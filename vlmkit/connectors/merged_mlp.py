"""Merged MLP: a norm over every patch, r x r neighbours become one token as wide as a patch, then a 2-layer MLP.

The projector of Mistral Small 3.1 (mistral.ai/news/mistral-small-3-1): RMSNorm -> r x r patches side by side -> Linear back to the
tower's width, without bias -> Linear -> GELU -> Linear. Other than in Qwen2-VL's merger the MLP is as wide as the language model.
Grid (F, H, W) -> (F, H/r, W/r). From 1024 to 5120 channels it has 35,652,608 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.activations import Activation
from vlmkit.connectors import connectors
from vlmkit.connectors.block_connector import BlockConnector, BlockOrder
from vlmkit.spec import SpecError


@connectors.register("merged_mlp")
@dataclass(frozen=True, kw_only=True)
class MergedMlp(BlockConnector):
    """RMSNorm -> space to depth -> Linear -> Linear -> activation -> Linear."""

    order: BlockOrder = "c dh dw"
    norm_eps: float = 1e-5
    """Epsilon of the RMSNorm, which stands before patches are merged."""
    activation: Activation = "gelu"
    """Between the last two linear layers."""
    bias: bool = False
    """Of the last two linear layers; the one that merges has none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm_eps <= 0:
            raise SpecError(f"merged_mlp.norm_eps: expected more than 0, got {self.norm_eps}")
