"""recipes/univa/train.sbatch under a stand-in for SLURM: two processes, stopped by the scheduler, continued on fewer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes.test_full import ROOT, STEPS, command, desk
from vlmkit.training.metrics_log import read_metrics

__all__ = ["desk"]

SBATCH = ROOT / "recipes" / "univa" / "train.sbatch"
SRUN = """#!{python}
# As srun: starts the command as SLURM_NTASKS processes, and ends with the highest of their exit codes.
import json, os, subprocess, sys

options = [word for word in sys.argv[1:] if word.startswith("--")][:2]
assert options == ["--kill-on-bad-exit=1", "--wait=0"], sys.argv
python, recipe, *argv = sys.argv[3:]
assert recipe == "recipes/univa/train.py" and os.path.exists(recipe), recipe
tasks = int(os.environ["SLURM_NTASKS"])
step = {{"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NODELIST": "localhost"}}
environment = [step | {{"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)}} for task in range(tasks)]
stop = json.loads(os.environ["STOP"])
plan = {{"folder": os.environ["FOLDER"], "groups": [{{"argv": argv, "environment": environment, "stop": stop}}]}}
worker = [python, "-W", "ignore", "-m", "tests.recipes.full_worker"]
done = subprocess.run(worker, input=json.dumps(plan), text=True, stdout=subprocess.PIPE)
(group,) = json.loads(done.stdout.splitlines()[-1])
print(*group["said"])
sys.exit(max(group["codes"]))
"""
SCONTROL = """#!/bin/sh
echo "scontrol $*" >>"$FOLDER/scontrol.txt"
"""


@pytest.fixture
def bin_directory(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def sbatch(bin_directory: Path, arguments: list[str], tasks: int, stop: list[int] | None) -> subprocess.CompletedProcess[str]:
    """The script as SLURM runs it: a copy, in the directory where sbatch was called."""
    copy = bin_directory / "slurm_script"
    copy.write_bytes(SBATCH.read_bytes())
    job = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": str(tasks), "SLURM_JOB_NODELIST": "localhost"}
    own = {"PYTHON": sys.executable, "FOLDER": str(bin_directory), "STOP": "null" if stop is None else str(stop)}
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")} | job | own
    environment |= {"PATH": f"{bin_directory}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        ["bash", str(copy), *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False
    )


def test_a_job_that_is_stopped_asks_to_run_again_and_goes_on_with_fewer_processes(desk, bin_directory, tmp_path):
    arguments = command(desk, tmp_path / "run", "fsdp2")[2:]  # the script itself says which preset
    first = sbatch(bin_directory, arguments, tasks=2, stop=[3, 0])
    assert first.returncode == 143, first.stdout + first.stderr
    assert "on 2 processes (fsdp2)" in first.stdout
    assert "the state is saved" in first.stdout
    assert (bin_directory / "scontrol.txt").read_text() == "scontrol requeue 4711\n"
    second = sbatch(bin_directory, arguments, tasks=1, stop=None)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "on cpu (fsdp2)" in second.stdout
    assert (bin_directory / "scontrol.txt").read_text() == "scontrol requeue 4711\n"
    places = [(name, step) for name, steps in STEPS.items() for step in range(steps)]
    assert [(record["stage"], record["step"]) for record in read_metrics(tmp_path / "run")] == places


def test_the_script_is_for_eight_nodes_and_gives_time_to_save():
    text = SBATCH.read_text(encoding="utf-8")
    for line in ("--nodes=8", "--ntasks-per-node=8", "--gpus-per-node=8", "--signal=TERM@300", "--requeue"):
        assert f"#SBATCH {line}\n" in text
    assert subprocess.run(["bash", "-n", str(SBATCH)], check=False).returncode == 0
