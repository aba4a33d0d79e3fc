"""One linear layer from the encoder's width to the language model's. LLaVA (Liu et al. 2023, arXiv:2304.08485), PaliGemma."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.features import Features


@connectors.register("linear")
@dataclass(frozen=True, kw_only=True)
class Linear(Connector):
    """Every token by itself; the grid stays, a kept class token passes."""

    bias: bool = True

    def build(self, dim_in: int, dim_out: int) -> nn.Module:
        return LinearModule(self, dim_in, dim_out)


class LinearModule(nn.Module):
    def __init__(self, spec: Linear, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out, bias=spec.bias)

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (N, D_lm)"""
        return features._replace(tokens=self.linear(features.tokens))
