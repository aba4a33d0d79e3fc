"""A gated MLP, which connectors and fusions share; activations are in vlmkit/activations.py."""

from __future__ import annotations

from torch import Tensor, nn

from vlmkit.activations import Activation, activation


class GatedMlp(nn.Module):
    """Two linear layers side by side, the product of one with the activation of the other, a third one: no bias (Shazeer 2020,
    arXiv:2002.05202; SwiGLU with "silu")."""

    def __init__(self, dim_in: int, hidden: int, dim_out: int, name: Activation) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(dim_in, hidden, bias=False)
        self.up_proj = nn.Linear(dim_in, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, dim_out, bias=False)
        self.activation = activation(name)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., dim_in) -> (..., dim_out)"""
        out: Tensor = self.down_proj(self.activation(self.gate_proj(tokens)) * self.up_proj(tokens))
        return out
