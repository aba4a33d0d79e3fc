"""The small choices that connectors share: an activation, a norm."""

from __future__ import annotations

from typing import Literal

from torch import nn

Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]
Norm = Literal["none", "layer_norm", "rms_norm"]


def activation(name: Activation) -> nn.Module:
    """The named activation; "gelu" is the exact one (erf), "gelu_tanh" its tanh approximation."""
    match name:
        case "gelu":
            return nn.GELU()
        case "gelu_tanh":
            return nn.GELU(approximate="tanh")
        case "silu":
            return nn.SiLU()
        case "relu":
            return nn.ReLU()


def norm(name: Norm, dim: int, eps: float) -> list[nn.Module]:
    """The named norm over `dim` channels, or no layer at all."""
    match name:
        case "none":
            return []
        case "layer_norm":
            return [nn.LayerNorm(dim, eps=eps)]
        case "rms_norm":
            return [nn.RMSNorm(dim, eps=eps)]
