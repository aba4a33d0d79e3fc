"""One linear layer from the encoder's width to the language model's. LLaVA (Liu et al. 2023, arXiv:2304.08485), PaliGemma."""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector


@connectors.register("linear")
@dataclass(frozen=True, kw_only=True)
class Linear(Connector):
    """Every token by itself; the grid stays, a kept class token passes."""

    bias: bool = True
