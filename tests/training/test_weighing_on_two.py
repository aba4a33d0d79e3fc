"""Weights of conversations are of the whole update: processes and accumulation divide it otherwise, and learn the same."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.states import SavedState

RUNS = {
    "whole": (1, "single", 4, 1, "root"),
    "accumulated": (1, "single", 1, 4, "root"),
    "two": (2, "ddp", 1, 2, "root"),
    "two-at-once": (2, "ddp", 2, 1, "root"),
    "two-fsdp2": (2, "fsdp2", 1, 2, "root"),
    "alike": (1, "single", 4, 1, "alike"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weighing")
    groups = [{"world": world, "runs": [[str(root / name), *how] for name, (at, *how) in RUNS.items() if at == world]} for world in (1, 2)]
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.weighing_worker"]
    done = subprocess.run(command, input=json.dumps(groups), text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return root


@pytest.mark.parametrize("name", ["accumulated", "two", "two-at-once", "two-fsdp2"])
def test_an_update_is_the_same_however_it_is_divided(runs: Path, name: str) -> None:
    one, other = (list(read_metrics(runs / of)) for of in ("whole", name))
    assert len(one) == len(other) == 4
    assert max(abs(first["loss"] - second["loss"]) for first, second in zip(one, other, strict=True)) < 5e-6
    assert max(abs(first["norm"] / second["norm"] - 1) for first, second in zip(one, other, strict=True)) < 1e-4
    states = [SavedState.newest(runs / of / "state") for of in ("whole", name)]
    assert states[0] is not None
    assert states[1] is not None
    names = states[0].names("weight")
    assert names == states[1].names("weight")
    for weight in names:
        values = [state.read("weight", weight, 0, math.prod(state.shape("weight", weight))) for state in states if state is not None]
        torch.testing.assert_close(values[1], values[0], rtol=0, atol=5e-5)


def test_alike_gradients_are_others(runs: Path) -> None:
    """Far beyond what divides the runs above."""
    one, other = (next(iter(read_metrics(runs / of))) for of in ("whole", "alike"))
    assert abs(one["norm"] / other["norm"] - 1) > 1e-2
