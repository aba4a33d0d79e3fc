"""As which of how many processes this one was started, by torchrun, accelerate launch, deepspeed or SLURM's srun. Loads no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from vlmkit.training.run import RunError

RENDEZVOUS_PORT = 29500
"""Where no launcher names a port; under SLURM the job's number is added, so that two jobs of one node do not meet."""


@dataclass(frozen=True)
class Place:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Its number on its machine, which is the number of its GPU."""
    address: str = "127.0.0.1"
    port: int = RENDEZVOUS_PORT


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """What the launcher says. torchrun, accelerate and deepspeed set RANK and WORLD_SIZE; srun sets SLURM_PROCID, and the first node of
    the job is where processes meet unless MASTER_ADDR names another.

    Raises RunError for numbers that are missing or contradict each other.
    """
    if "RANK" in environment or "WORLD_SIZE" in environment:
        rank, world = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
        local = _number(environment, "LOCAL_RANK", default=rank)
        return _checked(Place(rank, world, local, environment.get("MASTER_ADDR", "127.0.0.1"), _port(environment)))
    # A shell inside of an allocation has SLURM_NTASKS too; only a step of srun has this.
    if "SLURM_STEP_NUM_TASKS" in environment:
        rank, world = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_STEP_NUM_TASKS")
        nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "127.0.0.1")
        address = environment.get("MASTER_ADDR") or first_host(nodes)
        own = RENDEZVOUS_PORT + _number(environment, "SLURM_JOB_ID", default=0) % 1000
        port = _number(environment, "MASTER_PORT", default=own)
        return _checked(Place(rank, world, _number(environment, "SLURM_LOCALID", default=0), address, port))
    return Place()


def first_host(nodes: str) -> str:
    """'gpu[003-007,9],login' -> 'gpu003': the first of a list of SLURM's."""
    found = re.match(r"(?:[^\[\],]|\[\w[^\]]*\])+", nodes)
    if found is None:
        raise RunError(f"the list of nodes {nodes!r} names no host; set MASTER_ADDR to the first one")
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", found[0])


def _checked(place: Place) -> Place:
    if not 0 <= place.rank < place.world:
        raise RunError(f"the launcher says process {place.rank} of {place.world}; processes are counted from 0")
    return place


def _port(environment: Mapping[str, str]) -> int:
    return _number(environment, "MASTER_PORT", default=RENDEZVOUS_PORT)


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    given = environment.get(name)
    if given is None and default is not None:
        return default
    try:
        return int(given or "")
    except ValueError:
        raise RunError(f"the launcher has set {name} to {given!r}, a whole number was expected; start with torchrun or srun") from None
