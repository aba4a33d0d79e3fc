"""Every small named model can be planned (a minute), and three of some size as they are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vlmkit
from tests.counted import TINY_MODELS

ROOT = Path(__file__).resolve().parents[2]
WALK = """
import json, sys, vlmkit
from vlmkit.planning import Job
from vlmkit.planning.trace import trace
found = {}
for name in vlmkit.list_models("*-tiny"):
    for recompute in (False, True):
        step = trace(Job(model=vlmkit.architecture(name), length=4096, recompute=recompute))
        parts = {part: of.total for part, of in step.parts.items()}
        found.setdefault(name, []).append([parts, step.moments[-1][1:], step.learning, step.flops])
print(json.dumps(found))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False, cwd=ROOT)


@pytest.mark.slow
def test_every_small_model_is_traced() -> None:
    done = run("-c", WALK)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == TINY_MODELS
    for name, (once, again) in found.items():
        parts, (logits, gradients), learning, flops = once
        assert parts == vlmkit.architecture(name).parameters()._asdict(), name
        assert logits == 0, name
        assert gradients <= 2 * learning, name
        assert gradients > learning, f"{name}: most of what learns is used in a step"
        assert again[1] == [logits, gradients], name
        assert again[3] > flops, name


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["connector", "everything"])
@pytest.mark.parametrize("model", ["olmo3", "llama", "qwen2"])
def test_the_peak_is_the_measured_one(tmp_path: Path, model: str, stage: str) -> None:
    """Live tensors and resident memory; docs/scale.md has what was measured, 4.3 % at most."""
    done = run("benchmarks/plan.py", "--model", model, "--stage", stage, "--steps", "2", "--json", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "found.json").read_text())
    assert len(rows) == 2
    for row in rows:
        for what in ("live", "resident"):
            assert row["predicted"] == pytest.approx(row[what], rel=0.1), row
