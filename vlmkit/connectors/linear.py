"""One linear layer from the encoder's width to the language model's. LLaVA (Liu et al. 2023, arXiv:2304.08485), PaliGemma."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector

if TYPE_CHECKING:
    from torch import nn


@connectors.register("linear")
@dataclass(frozen=True, kw_only=True)
class Linear(Connector):
    """Every token by itself; the grid stays, a kept class token passes."""

    bias: bool = True

    def build(self, dim_in: int, dim_out: int) -> nn.Module:
        from vlmkit.connectors.linear_module import LinearModule

        return LinearModule(self, dim_in, dim_out)
