"""The launchers themselves start the same command on two CPU processes, and the losses are the same under each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.packs import sample
from tests.training.test_train_command import PLUGIN
from vlmkit.data.shards import ShardWriter
from vlmkit.training.metrics_log import read_metrics

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STAGES = """
stages:
- {name: align, steps: 3, batch_tokens: 256, pack: true, max_length: 128, connector: 1.0e-2, data: [{name: a}]}
"""
TRAIN = ["train", "small", "--plugin", "small.py", "--workers", "0", "--threads", "1", "--stages", "stages.yaml", "--data", "data"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    desk = tmp_path_factory.mktemp("desk")
    (desk / "small.py").write_text(PLUGIN)
    (desk / "stages.yaml").write_text(STAGES)
    with ShardWriter(desk / "data" / "a") as writer:
        for number in range(12):
            assert writer.write(sample(number))
    started(desk, [*TORCHRUN, "--master-port", port(), "-m", "--", "vlmkit", *TRAIN, "--run", "wanted"])
    return desk


def started(desk: Path, command: list[str]) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=desk, env=environment, text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
# With --cpu in the place of --multi_gpu accelerate 1.15 starts one process, however many are asked for.
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
DEEPSPEED = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "2"]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("torchrun", [*TORCHRUN, "--master-port", "PORT", "-m", "vlmkit", *TRAIN, "--engine", "fsdp2", "--run-dir"]),
        ("accelerate", [*ACCELERATE, "--main_process_port", "PORT", "-m", "vlmkit", *TRAIN, "--engine", "fsdp2", "--run"]),
        ("deepspeed", [*DEEPSPEED, "--master_port", "PORT", "--module", "vlmkit", *TRAIN, "--engine", "zero3", "--run"]),
    ],
)
def test_a_launcher_starts_the_command(desk, name, command):
    started(desk, [port() if word == "PORT" else word for word in command] + [name])
    wanted, found = (list(read_metrics(desk / run)) for run in ("wanted", name))
    assert len(wanted) == 3
    for run in ("wanted", name):  # two processes began it: each has a stream of its own
        assert len(json.loads((desk / run / "data.json").read_text())["streams"]) == 2
    for one, other in zip(wanted, found, strict=True):
        assert abs(one["loss"] - other["loss"]) < 2e-6
        assert one["tokens"] == other["tokens"]
    assert (desk / name / "checkpoint" / "model.safetensors").exists()


def test_a_launcher_starts_the_recipe(desk):
    """And a wrong word of the recipe's ends all of its processes with a sentence."""
    recipe = [*TORCHRUN, "--master-port", port(), "--", str(ROOT / "recipes" / "univa" / "train.py")]
    with pytest.raises(AssertionError, match="expected a number above 0 and up to 100, got 'x'"):
        started(desk, [*recipe, "--scale", "x"])
    given = ["--preset", "full", "--model", "small", "--plugin", "small.py", "--weights", "random", "--scale", "0.0001"]
    given += ["--length", "128", "--batch-tokens", "1024"]
    with pytest.raises(AssertionError, match="the full preset trains small; what is missing here"):
        started(desk, [*recipe, *given, "--data", "data", "--run", "recipe"])
