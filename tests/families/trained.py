"""A model learns: the law that every system's page records as `trains`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import vlmkit


def assert_it_trains(model: vlmkit.VLM, batch: Mapping[str, Any]) -> None:
    """Three steps on one batch."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
