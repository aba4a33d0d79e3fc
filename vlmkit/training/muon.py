"""Muon: momentum whose update of a matrix is made orthogonal, so that no direction of it learns faster than another.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon); the rule for step sizes is theirs too: sqrt(max(1, rows /
columns)). torch.optim.Muon iterates in bfloat16, which a CPU is slow at, and takes a fused query-key-value projection as
one matrix; here it is three, in the precision of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial a x + b x^3 + c x^5 that, applied five times, takes singular values from (0, 1] to about 1."""


class Muon(torch.optim.Optimizer):
    """For matrices inside blocks; embeddings, heads, convolutions and vectors belong to AdamW. A group's `pieces` is how
    many projections are stacked in each of its matrices."""

    def __init__(self, params: Iterable[Any], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "pieces": 1})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(momentum, group["momentum"])
                update = torch.cat([orthogonal(piece) for piece in ahead.chunk(group["pieces"])])
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, about (singular values 0.7 to 1.2), times sqrt(max(1, rows / columns)): Newton-Schulz."""
    rows, columns = matrix.shape
    first, third, fifth = COEFFICIENTS
    x = matrix.T if rows > columns else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(STEPS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=third, alpha=fifth), x, beta=first)
    scale: float = max(1.0, rows / columns) ** 0.5
    return (x.T if rows > columns else x) * scale
