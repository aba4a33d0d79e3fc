"""Activations by name: transformers' own names, and one of vlmkit's.

A description checks a name at once and imports nothing for that; transformers' table is asked for names that are not listed here, so
that one which a later transformers adds is known as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from vlmkit.registry import suggestion
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from torch import nn

NAMES = frozenset(
    (
        *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh", "gelu_pytorch_tanh"),
        *("hardswish", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu", "relu", "relu2", "relu6", "sigmoid"),
        *("silu", "sqrtsoftplus", "swish", "tanh", "xielu"),
    )
)
"""transformers' table, `transformers.activations.ACT2FN`."""
LEARNED = frozenset({"prelu", "xielu"})
"""Those that have weights."""
OWN = {"gelu_tanh": "gelu_pytorch_tanh"}
"""vlmkit's names -> transformers'."""
THEIRS = {theirs: ours for ours, theirs in OWN.items()}


def refuse_unknown(name: str, path: str) -> None:
    """Raise SpecError for an activation that transformers does not have."""
    if name in NAMES:
        return
    from transformers.activations import ACT2CLS

    if name not in ACT2CLS:
        hint = suggestion(name, ACT2CLS) or f" known: {', '.join(sorted(ACT2CLS))}"
        raise SpecError(f"{path}: transformers has no activation {name!r};{hint}")


def refuse_unnamed(name: str, path: str) -> None:
    """The same, where vlmkit's own names will do too."""
    if name not in OWN:
        refuse_unknown(name, path)


TransformersActivation = Annotated[str, refuse_unknown]
"""An activation by transformers' name: "gelu" is the exact one (erf), "gelu_pytorch_tanh" its tanh approximation."""
Activation = Annotated[str, refuse_unnamed]
"""The same, or "gelu_tanh", which is what transformers calls "gelu_pytorch_tanh"."""


def activation(name: str) -> nn.Module:
    """The named activation."""
    from torch import nn
    from transformers.activations import ACT2FN

    match name:
        case "gelu":
            return nn.GELU()
        case "gelu_tanh":
            return nn.GELU(approximate="tanh")
        case "silu":
            return nn.SiLU()
        case "relu":
            return nn.ReLU()
    made: nn.Module = ACT2FN[name]
    return made
