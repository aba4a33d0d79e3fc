"""The module of `linear`."""

from __future__ import annotations

from torch import nn

from vlmkit.connectors.linear import Linear
from vlmkit.features import Features


def build(spec: Linear, dim_in: int, dim_out: int) -> nn.Module:
    return LinearModule(spec, dim_in, dim_out)


class LinearModule(nn.Module):
    def __init__(self, spec: Linear, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out, bias=spec.bias)

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (N, D_lm)"""
        return features._replace(tokens=self.linear(features.tokens))
