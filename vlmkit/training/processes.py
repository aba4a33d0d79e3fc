"""The processes that train together: who this one is, and the few things that all of them do at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore

from vlmkit.training.launched import Place, place
from vlmkit.training.run import RunError

PATIENCE = timedelta(minutes=30)
"""A process that waits longer for the others ends the run: one of them is gone. Reading published weights takes minutes."""


class Processes:
    """The processes of a run. With one of them nothing is communicated."""

    def __init__(self, rank: int = 0, world: int = 1, device: torch.device | str = "cpu") -> None:
        self.rank, self.world = rank, world
        self.device = torch.device(device)

    @property
    def main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Over all processes, number by number, in double precision."""
        if self.world == 1:
            return [float(value) for value in values]
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(mine)
        summed: list[float] = mine.tolist()
        return summed

    def summed(self, value: Tensor) -> Tensor:
        """Of a tensor on the device, without a look at it."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def gather(self, value: Any) -> list[Any]:
        """What each process has, in order of ranks, on all of them."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through alone, then the others: what it writes is there for them. Where it fails, they raise RunError with
        its words instead of waiting for it."""
        if not self.main and (problem := self.gather(None)[0]) is not None:
            raise RunError(f"the main process could not go on: {problem}")
        try:
            yield
        except BaseException as error:
            if self.main:
                self.gather(str(error) or type(error).__name__)
            raise
        if self.main:
            self.gather(None)


def meet(where: Place | None = None, *, patience: timedelta = PATIENCE) -> Processes:
    """Join the processes that the launcher started, on its GPU each or on CPUs through gloo. Called again it finds the same."""
    where = place() if where is None else where
    device = torch.device("cuda", where.local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if where.world > 1 and not dist.is_initialized():
        _join(where, device, patience)
    return Processes(where.rank, where.world, device)


def join_alone(device: torch.device) -> None:
    """A group of one process, for engines that ask for a group."""
    if not dist.is_initialized():
        dist.init_process_group(_backend(device), store=HashStore(), rank=0, world_size=1)


def _join(where: Place, device: torch.device, patience: timedelta) -> None:
    # DeepSpeed and torch's own tools read the same from the environment.
    os.environ |= {
        "RANK": str(where.rank),
        "WORLD_SIZE": str(where.world),
        "LOCAL_RANK": str(where.local_rank),
        "MASTER_ADDR": where.address,
        "MASTER_PORT": str(where.port),
    }
    dist.init_process_group(_backend(device), timeout=patience)


def _backend(device: torch.device) -> str:
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
