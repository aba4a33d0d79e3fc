"""The module of `mlp`: linear layers with norms and activations between them."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from vlmkit.activations import activation
from vlmkit.connectors.mlp import Mlp, Norm
from vlmkit.features import Features


def build(spec: Mlp, dim_in: int, dim_out: int) -> nn.Module:
    return MlpModule(spec, dim_in, dim_out)


class MlpModule(nn.Module):
    def __init__(self, spec: Mlp, dim_in: int, dim_out: int) -> None:
        super().__init__()
        hidden = dim_out if spec.hidden is None else spec.hidden
        between = hidden if isinstance(hidden, tuple) else (hidden,) * (spec.depth - 1)
        widths = [dim_in, *between, dim_out]
        layers = norm(spec.norm_in, dim_in, spec.norm_eps)
        for index, (width, following) in enumerate(pairwise(widths), start=1):
            layers.append(nn.Linear(width, following, bias=spec.bias))
            if index < spec.depth:
                layers += [*norm(spec.norm_between, following, spec.norm_eps), activation(spec.activation)]
        layers += norm(spec.norm_out, dim_out, spec.norm_eps)
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (N, D_lm)"""
        return features._replace(tokens=self.layers(features.tokens))


def norm(name: Norm, dim: int, eps: float) -> list[nn.Module]:
    """The named norm over `dim` channels, or no layer at all."""
    match name:
        case "none":
            return []
        case "layer_norm":
            return [nn.LayerNorm(dim, eps=eps)]
        case "rms_norm":
            return [nn.RMSNorm(dim, eps=eps)]
