"""A group of forked processes: what they import takes longer than what they do."""

from __future__ import annotations

import os
import signal
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist

from vlmkit.training.launched import Place
from vlmkit.training.processes import Processes, meet


def group(world: int, work: Callable[[Processes], None]) -> None:
    """Raises RuntimeError where one of the processes fails; the others are ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            try:
                processes = meet(Place(rank, world, 0, port=port), patience=timedelta(seconds=120))
                work(processes)
                processes.wait()
                if dist.is_initialized():
                    dist.destroy_process_group()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    while children:
        ended, status = os.wait()
        children.remove(ended)
        if status:
            for child in children:
                os.kill(child, signal.SIGKILL)
            raise RuntimeError(f"a process of {world} failed with {os.waitstatus_to_exitcode(status)}")
