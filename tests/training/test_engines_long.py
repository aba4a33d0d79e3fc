"""Every engine on two processes stays with one process for fifty steps, also where the processes see different things.

The micro-batches are those of `engine_worker.Mixed`: words alone, one picture, several of other sizes, padded or packed, so the two
processes of a step hardly ever draw alike.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vlmkit.training.metrics_log import read_metrics

pytestmark = pytest.mark.slow

SPREAD = ("ddp", "fsdp2", "zero2", "zero3")
STAGES = ("connector", "full", "slow-lora")
"""At five times its rate and without warming up the stage with adapters is unstable: from a rounding in step 7 on, losses of DDP and of one
process grow apart by a factor of ten every six steps, to 7e-4."""
STEPS = 50


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("long")
    two = [[str(root / f"{kind}-{stage}"), kind, f"{stage}*10", None] for stage in STAGES for kind in SPREAD]
    one = [[str(root / f"single-{stage}"), "single", f"{stage}*10", None] for stage in STAGES]
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.engine_worker"]
    plan = json.dumps([{"world": 2, "runs": two}, {"world": 1, "runs": one}])
    done = subprocess.run(command, input=plan, text=True, capture_output=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return root


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", SPREAD)
def test_fifty_steps_have_the_losses_of_one_process(runs, kind, stage):
    """Measured: losses (5.8 to 5.6, 4.1 and 5.2) within 4.8e-7, 4.8e-7 and 9.5e-7 for every engine; norms within 3.7e-7, 3.1e-7 and
    3.3e-6 of their size."""
    wanted, found = (list(read_metrics(runs / f"{of}-{stage}")) for of in ("single", kind))
    assert [record["step"] for record in found] == [record["step"] for record in wanted] == list(range(STEPS))
    apart = max(abs(one["loss"] - other["loss"]) for one, other in zip(wanted, found, strict=True))
    norms = max(abs(one["norm"] / other["norm"] - 1) for one, other in zip(wanted, found, strict=True))
    print(f"{kind} {stage}: losses {wanted[0]['loss']:.3f} to {wanted[-1]['loss']:.3f}, apart {apart:.1e}, norms {norms:.1e}")
    assert wanted[-1]["loss"] < wanted[0]["loss"] - (0.1 if stage == "connector" else 0.5)
    assert apart < 1e-4
