"""Micro-batches of one process, made ready ahead of the step that takes them, by workers that are gone when the stage is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import active_children
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlmkit.data.mixture import Batches, Mixture
from vlmkit.data.sample import DataError
from vlmkit.terminal import guard
from vlmkit.training.processes import Processes
from vlmkit.training.signals import ignore_stop_signals, stop_signals_held_back
from vlmkit.training.stage import Stage


@contextmanager
def working_ahead(begin: Callable[[], Iterator[dict[str, Tensor]]]) -> Iterator[Iterator[dict[str, Tensor]]]:
    """What `begin` makes, closed at the end with the workers that it started. These leave stop signals to the training process."""
    others = set(active_children())
    with stop_signals_held_back():
        ahead = begin()
        workers = set(active_children()) - others
    try:
        yield _in_plain_words(ahead)
    finally:
        close = getattr(ahead, "close", None) or getattr(ahead, "_shutdown_workers", None)
        if close is not None:
            close()
        for worker in workers:  # one that is stuck in a batch ignores what torch ends it with, and Python waits for it
            worker.kill()


def _in_plain_words(batches: Iterator[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """What a worker says of data, without the traceback of the worker that torch puts before it. Any other error is a fault of ours, of
    which every line is wanted."""
    while True:
        try:
            batch = next(batches, None)
        except (DataError, OSError) as error:
            if (said := _last_sentence(error)) is None:
                raise
            raise type(error)(said) from None
        if batch is None:
            return
        yield batch


def _last_sentence(error: Exception) -> str | None:
    """Of an error that torch made of one in a worker; None of any other."""
    text = str(error)
    if not text.startswith(f"Caught {type(error).__name__} in "):
        return None
    begin = text.rfind(f"{type(error).__qualname__}: ")
    return text[begin:].split(": ", 1)[1].strip() if begin >= 0 else None


def _begin(worker: int) -> None:
    guard()
    ignore_stop_signals(worker)


def mixed(mixture: Mixture, state: Mapping[str, Any] | None, processes: Processes, *, workers: int, threads: int) -> Batches:
    """The micro-batches of a mixture, from its beginning or behind a saved state."""
    return mixture.batches(
        state,
        rank=processes.rank,
        world=processes.world,
        workers=workers,
        threads=threads,
        pin_memory=processes.device.type == "cuda",
        on_worker=_begin,
    )


def numbered(
    batches: Dataset[dict[str, Tensor]], stage: Stage, first: int, processes: Processes, *, workers: int
) -> Iterator[dict[str, Tensor]]:
    """Micro-batches that are asked for by number, from step `first` of the stage on."""
    world, rank = processes.world, processes.rank
    each = stage.accumulate * world
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first * each + rank, stage.steps * each, world),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_begin,
        pin_memory=processes.device.type == "cuda",
        # Its own generator: the one of the training is left alone.
        generator=torch.Generator(),
    )
    return iter(loader)
