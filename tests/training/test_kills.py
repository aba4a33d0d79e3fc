"""kill -9 at any moment of a run, again and again: the run goes on from its last complete state to what it would have been."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.data.packs import sample
from tests.training.kill_worker import STAGES
from vlmkit.data.shards import ShardWriter
from vlmkit.training.meters import CLOCKED
from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.states import SavedState


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for source in "ab":
        with ShardWriter(folder / source) as writer:
            for number in range(40):
                assert writer.write(sample(number, source))
    return folder


def run(root: Path, data: Path, engine: str, world: int, *, kills: int, scale: float) -> list[dict[str, Any]]:
    """The records of an uninterrupted run in `whole`, and those of one that was killed so often in `killed`."""
    common = {"data": str(data), "engine": engine, "world": world, "seed": 12, "scale": scale, "pause": 0.1}
    plans = [common | {"directory": str(root / name), "kills": count} for name, count in (("whole", 0), ("killed", kills))]
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.kill_worker"]
    done = subprocess.run(command, input=json.dumps(plans), text=True, capture_output=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    whole, killed = json.loads(done.stdout.splitlines()[-1])
    assert len(whole["killed"]) == 0
    assert len(killed["killed"]) == kills
    print(engine, world, "killed after steps", killed["killed"])
    assert max(killed["killed"]) > 0.5 * sum(stage.scaled(scale).steps for stage in STAGES)
    return [[*read_metrics(root / name)] for name in ("whole", "killed")]


def newest(run: Path) -> SavedState:
    state = SavedState.newest(run / "state")
    assert state is not None
    return state


def tensors(state: SavedState) -> dict[tuple[str, str], Tensor]:
    return {
        (kind, name): state.read(kind, name, 0, math.prod(state.shape(kind, name)))
        for kind in state.kinds()
        for name in sorted(state.names(kind))
    }


@pytest.mark.parametrize(("kills", "scale"), [(3, 0.16), pytest.param(20, 1.0, marks=pytest.mark.slow)])
def test_one_process_goes_on_to_the_same_bits(data, tmp_path, kills, scale):
    whole, killed = run(tmp_path, data, "single", 1, kills=kills, scale=scale)
    without_time = [[{key: value for key, value in one.items() if key not in CLOCKED} for one in records] for records in (whole, killed)]
    assert without_time[0] == without_time[1]
    assert len(whole) == sum(stage.scaled(scale).steps for stage in STAGES)
    one, other = (tensors(newest(tmp_path / name)) for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[place]) for place, value in one.items())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero3", "fsdp2"])
def test_two_processes_go_on_to_the_same_losses_and_weights(data, tmp_path, engine):
    """Measured: the same bits, for both engines. Allowed 1e-5."""
    whole, killed = run(tmp_path, data, engine, 2, kills=20, scale=1.0)
    assert [(one["stage"], one["step"]) for one in whole] == [(one["stage"], one["step"]) for one in killed]
    losses = max(abs(one["loss"] - other["loss"]) for one, other in zip(whole, killed, strict=True))
    one, other = (tensors(newest(tmp_path / name)) for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    weights = max(float((value - other[place]).abs().max()) for place, value in one.items() if value.numel())
    print(f"{engine}: losses within {losses:.1e}, weights within {weights:.1e}")
    assert losses < 1e-5
    assert weights < 1e-5
