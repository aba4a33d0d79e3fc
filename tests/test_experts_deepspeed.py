"""Experts beside DeepSpeed's own layer, which MoE-LLaVA trains with: on one process, with the same weights, in evaluation and in training.

DeepSpeed draws the second expert at random unless it is told not to; here it is told.
"""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import draw
from vlmkit.experts import Experts
from vlmkit.experts_module import Mixture, Mixtures, Routes

pytestmark = pytest.mark.train


class Ffn(nn.Module):
    """Gated, with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(16, 32), nn.Linear(16, 32, bias=False), nn.Linear(32, 16)

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.down_proj(nn.functional.silu(self.gate_proj(rows)) * self.up_proj(rows))
        return out


def pair(count: int, capacity: float) -> tuple[Mixture, nn.Module]:
    """Ours and theirs, experts of both different from each other."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.moe.experts import Experts as Theirs
    from deepspeed.moe.sharded_moe import MOELayer, TopKGate

    mixtures = Mixtures(Experts(count=count, capacity=capacity))
    ours = Mixture(Ffn(), 16, mixtures, 0)
    draw(ours, scale=0.5)
    gate = TopKGate(16, count, k=2, capacity_factor=capacity, eval_capacity_factor=2.0, min_capacity=0, top2_2nd_expert_sampling=False)
    gate.wg.weight.data = ours.gate.weight.detach().clone()
    theirs = MOELayer(gate, Theirs(Ffn(), count), "experts", 1, count)
    for number, expert in enumerate(theirs.experts.deepspeed_experts):
        expert.load_state_dict({name: ours.experts.state_dict()[name][number] for name in expert.state_dict()})
    return ours, theirs


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("count", "capacity"), [(4, 1.5), (4, 0.6), (2, 0.7), (3, 1.0)])
def test_answers_gradients_and_the_balancing_loss_are_deepspeeds(count: int, capacity: float, training: bool) -> None:
    """Measured 1.2e-7 for answers up to 3, 5e-7 for gradients. In evaluation DeepSpeed's bound is none with four experts: with three and
    two of them it is more than there are tokens."""
    ours, theirs = (each.train(training) for each in pair(count, capacity))
    rows = torch.randn(2, 13, 16, generator=torch.Generator().manual_seed(4))
    pairs = []
    for layer in (ours, theirs):
        read = rows.clone().requires_grad_()
        routes = ours.mixtures.routes = Routes()
        out = layer(read) if layer is ours else layer(read, None)
        loss = routes.unevenness[0] if layer is ours else layer.l_aux
        (out.square().sum() + 3 * loss).backward()
        gate = ours.gate.weight if layer is ours else layer.gate.wg.weight
        pairs.append((out.detach(), loss.detach(), read.grad, gate.grad))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-6)
    dense = copy.deepcopy(ours).eval()
    if training and capacity < 1:
        assert float((dense(rows) - pairs[0][0]).abs().max()) > 1e-2, "some tokens were dropped"
