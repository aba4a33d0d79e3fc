"""Linear layers with activations between them, token by token.

LLaVA-1.5 (Liu et al. 2023, arXiv:2310.03744) is the default: Linear, GELU, Linear. With norms it is the projector of others:

    Yi-VL (arXiv:2403.04652)        Linear, LayerNorm, GELU, Linear, LayerNorm   norm_between, norm_out = "layer_norm"
    InternVL (arXiv:2404.16821)     LayerNorm, Linear, GELU, Linear              norm_in = "layer_norm", after a pixel shuffle
    OmniVLM (arXiv:2412.11475)      Linear, tanh GELU, Linear                    in `sequence_fold`
    Prismatic (arXiv:2402.07865)    three layers, the first four times as wide   depth = 3, hidden = (8704, 4096)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmkit.activations import Activation
from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.spec import SpecError

Norm = Literal["none", "layer_norm", "rms_norm"]


@connectors.register("mlp")
@dataclass(frozen=True, kw_only=True)
class Mlp(Connector):
    """Every token by itself; the grid stays, a kept class token passes."""

    depth: int = 2
    """Linear layers."""
    hidden: int | tuple[int, ...] | None = None
    """Width between them, or one width between each two; None is the language model's."""
    activation: Activation = "gelu"
    """Between two linear layers."""
    bias: bool = True
    """Of the linear layers."""
    norm_in: Norm = "none"
    """Before the first linear layer, over the encoder's width."""
    norm_between: Norm = "none"
    """After every linear layer but the last, before its activation."""
    norm_out: Norm = "none"
    """After the last linear layer."""
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 1:
            raise SpecError(f"mlp.depth: expected 1 or more linear layers, got {self.depth}")
        widths = (self.hidden,) if isinstance(self.hidden, int) else self.hidden or ()
        if self.hidden is not None and (self.depth == 1 or min(widths, default=0) < 1):
            raise SpecError(f"mlp.hidden: expected 1 or more channels between 2 or more layers, got {self.hidden} with depth {self.depth}")
        if isinstance(self.hidden, tuple) and len(self.hidden) != self.depth - 1:
            raise SpecError(f"mlp.hidden: {self.depth} layers have {self.depth - 1} widths between them, got {self.hidden}")
        if self.norm_eps <= 0:
            raise SpecError(f"mlp.norm_eps: expected more than 0, got {self.norm_eps}")
