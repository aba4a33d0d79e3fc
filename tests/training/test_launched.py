"""Every launcher says in its own words as which of how many processes this one was started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.training.launched import RENDEZVOUS_PORT, Place, first_host, place
from vlmkit.training.run import RunError

TORCHRUN = {"RANK": "11", "WORLD_SIZE": "16", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "gpu003", "MASTER_PORT": "29400"}
"""As torchrun sets them; accelerate launch and deepspeed start processes through it, or set the same."""
SRUN = {
    "SLURM_JOB_ID": "123456",
    "SLURM_NTASKS": "16",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_PROCID": "11",
    "SLURM_LOCALID": "3",
    "SLURM_JOB_NODELIST": "gpu[003-004]",
    "SLURM_STEP_NODELIST": "gpu[003-004]",
}


def test_a_process_that_nobody_launched_is_alone():
    assert place({"HOME": "/root", "SLURM_NTASKS": "16", "SLURM_PROCID": "0"}) == Place(0, 1, 0)  # a shell inside of an allocation


def test_torchrun():
    assert place(TORCHRUN) == Place(11, 16, 3, "gpu003", 29400)


def test_of_accelerate_and_deepspeed_on_one_machine():
    started = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    accelerate = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "true", "LOCAL_RANK": "1"}
    deepspeed = {"CROSS_RANK": "0", "CROSS_SIZE": "1", "LOCAL_RANK": "1", "LOCAL_SIZE": "2"}
    assert place(started | accelerate) == place(started | deepspeed) == Place(1, 2, 1, "127.0.0.1", 29500)
    assert place(started) == Place(1, 2, 1, "127.0.0.1", 29500)  # without LOCAL_RANK all are on this machine


def test_srun():
    assert place(SRUN) == Place(11, 16, 3, "gpu003", RENDEZVOUS_PORT + 456)
    assert place(SRUN | {"MASTER_ADDR": "head", "MASTER_PORT": "1234"}) == Place(11, 16, 3, "head", 1234)
    other = place(SRUN | {"SLURM_JOB_ID": "123457"})
    assert other.port != place(SRUN).port  # two jobs of one node do not meet


def test_a_step_of_srun_that_is_smaller_than_its_job_counts_its_own_processes():
    assert place(SRUN | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "gpu004"}).address == "gpu004"
    assert place(SRUN | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}).world == 2


def test_torchrun_inside_of_srun_is_believed():
    assert place(SRUN | TORCHRUN) == place(TORCHRUN)


@given(world=st.integers(1, 10_000), data=st.data())
def test_every_process_has_its_place(world, data):
    rank = data.draw(st.integers(0, world - 1))
    numbers = {"RANK": str(rank), "WORLD_SIZE": str(world)}
    slurm = {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": str(world)}
    assert (place(numbers).rank, place(numbers).world) == (place(slurm).rank, place(slurm).world) == (rank, world)
    beyond = {"RANK": str(world + rank), "WORLD_SIZE": str(world)}
    with pytest.raises(RunError, match=f"process {world + rank} of {world}; processes are counted from 0"):
        place(beyond)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "0"}, "WORLD_SIZE to None, a whole number was expected; start with torchrun or srun"),
        ({"WORLD_SIZE": "2"}, "RANK to None"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK to 'x'"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK to ''"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "process -1 of 2"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "process 0 of 0"),
        (TORCHRUN | {"MASTER_PORT": "http"}, "MASTER_PORT to 'http'"),
        (TORCHRUN | {"LOCAL_RANK": "first"}, "LOCAL_RANK to 'first'"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "SLURM_PROCID to None"),
        (SRUN | {"SLURM_JOB_ID": "12_3a"}, "SLURM_JOB_ID to '12_3a'"),
        (SRUN | {"SLURM_STEP_NODELIST": ",", "SLURM_JOB_NODELIST": ","}, "the list of nodes ',' names no host; set MASTER_ADDR"),
    ],
)
def test_numbers_that_cannot_be_are_told(environment, words):
    with pytest.raises(RunError) as told:
        place(environment)
    assert words in str(told.value)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("localhost", "localhost"),
        ("gpu-a-1.cluster,gpu-a-2.cluster", "gpu-a-1.cluster"),
        ("gpu[003-007,9],login", "gpu003"),
        ("gpu[9,003-007]", "gpu9"),
        ("rack2-gpu[12]-ib,rack3", "rack2-gpu12-ib"),
        ("a,b[1-2]", "a"),
        ("rack[1-2]-gpu[03-04],login", "rack1-gpu03"),
    ],
)
def test_the_first_host_of_slurms_lists(nodes, first):
    assert first_host(nodes) == first


def test_asking_loads_no_torch():
    code = "import sys; from vlmkit.training.launched import place; place(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
