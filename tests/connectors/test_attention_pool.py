"""Molmo's connector beside what upstream's classes gave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.molmo_upstream import drawn, golden
from vlmkit.connectors.attention_pool import AttentionPool
from vlmkit.features import Features, Grid, GridError
from vlmkit.spec import SpecError


def test_it_computes_what_upstreams_classes_compute() -> None:
    """Measured 1e-6 of numbers up to 8.2, allowed 1e-5."""
    module = AttentionPool(heads=2, width=16, hidden=20).build(32, 24)
    module.load_state_dict({name: drawn(name, weight.shape, 0.3) for name, weight in module.state_dict().items()})
    windows = torch.from_numpy(np.random.RandomState(0).standard_normal((2, 4, 32)).astype(np.float32))
    # Two windows side by side in one view: rows 0 and 1 of the first, then of the second.
    tokens = windows.view(2, 2, 2, 32).transpose(0, 1).reshape(8, 32)
    with torch.no_grad():
        found = module(Features(tokens, (Grid(1, 2, 4),)))
    assert found.grids == (Grid(1, 1, 2),)
    wanted = torch.tensor(golden("connector"))
    assert wanted.abs().max() > 0.1
    assert (found.tokens - wanted).abs().max() < 1e-5


def test_between_clip_and_qwen2_7b_it_has_upstreams_parameters() -> None:
    with torch.device("meta"):
        module = AttentionPool(width=1024, hidden=18944).build(2048, 3584)
    assert sum(weight.numel() for weight in module.parameters()) == 114_036_736


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SpecError, match=r"attention_pool\.heads: width 1000 does not divide into 16 heads"):
        AttentionPool(width=1000)
    with pytest.raises(SpecError, match="16 heads, into which the 40 channels"):
        AttentionPool().build(40, 8)
    with pytest.raises(GridError, match="attention_pool merges 2x2 patches, but the grid is 3x4"):
        AttentionPool().grid_out(Grid(1, 3, 4))
