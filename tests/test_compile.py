"""`torch.compile(model)` runs and computes what the model computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import CONVERSATIONS, apart, architecture, model, shared


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",  # the graphs of forward and backward, run as they were traced: seconds
        pytest.param("inductor", marks=pytest.mark.habits),  # the default; a minute of a C++ compiler
    ],
)
def test_a_compiled_model_takes_the_step_that_the_model_takes(backend: str) -> None:
    built = model(architecture(language="llama")).train()
    compiled = torch.compile(built, backend=backend)
    batch = shared()[1](CONVERSATIONS[:1])
    torch._dynamo.reset()
    loss, gradients = _step(built, built, batch)
    found, compiled_gradients = _step(compiled, built, batch)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert apart(found, loss) <= 1e-5  # measured: 0 with aot_eager, 1e-6 with inductor; gradients alike
    assert gradients.keys() == compiled_gradients.keys()
    assert len(gradients) > 40
    for name, gradient in gradients.items():
        assert apart(compiled_gradients[name], gradient) <= 1e-5 * max(1.0, float(gradient.abs().max())), name


def _step(called: nn.Module, of: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    of.zero_grad()
    loss = called(**batch).loss
    loss.backward()
    return loss.detach(), {name: weight.grad.clone() for name, weight in of.named_parameters() if weight.grad is not None}
