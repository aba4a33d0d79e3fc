"""Operations reckoned from the architecture beside those that torch counts in a training step of the same model."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import vlmkit
from tests.training.conftest import small
from vlmkit.architecture import PARTS
from vlmkit.training.flops import ModelFlops, learning_shares

LONG = "a question of some length, so that attention counts beside what stands at each token, "


def wide(window: int = 4096) -> vlmkit.Architecture:
    """As `small`, with a window that holds the conversations: torch counts what a mask covers as well."""
    language_model = small().language_model
    return small().replace(language_model=language_model.replace(config=language_model.config | {"sliding_window": window}))


def batch_of(
    architecture: vlmkit.Architecture, text: str = LONG * 4, sizes: tuple[tuple[int, int], ...] = ((112, 112), (112, 112))
) -> dict[str, Tensor]:
    """Conversations of one length, of which every token is supervised."""
    rows = []
    for size in sizes:
        content = [{"type": "image", "image": np.zeros((*size, 3), np.uint8)}, {"type": "text", "text": text}]
        rows.append([{"role": "user", "content": content}, {"role": "assistant", "content": "yes"}])
    batch = dict(vlmkit.build_processor(architecture)(rows))
    batch["labels"] = batch["input_ids"].clone()
    del batch["supervised"]
    return batch


def counted(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """A training step's, with attention that the counter sees: it has no formula for the CPU's own kernel (torch 2.14)."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss = model.train()(**batch).loss
        loss.backward()
    return float(counter.get_total_flops())


def learn(model: nn.Module, *parts: str) -> dict[str, float]:
    for part in PARTS:
        getattr(model, part).requires_grad_(part in parts)
    return learning_shares({part: getattr(model, part) for part in PARTS})


@pytest.mark.parametrize(
    "parts",
    [("connector",), ("language_model",), ("encoder",), ("encoder", "connector"), ("encoder", "connector", "language_model")],
    ids="+".join,
)
def test_operations_of_a_stage_are_those_that_torch_counts(parts):
    architecture = wide()
    model, batch = vlmkit.build(architecture, seed=0), batch_of(architecture)
    assert batch["attention_mask"].all()
    reckoned = ModelFlops(architecture, learn(model, *parts))(batch)
    assert reckoned == pytest.approx(counted(model, batch), rel=0.02)
