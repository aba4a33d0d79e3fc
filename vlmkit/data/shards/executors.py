"""Where images are opened and shards are read back: in processes of their own, or in this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from vlmkit.terminal import guard


class Here(Executor):
    """This process, at once."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(function(*arguments, **options))
        except Exception as error:
            done.set_exception(error)
        return done


@contextmanager
def image_processes(workers: int) -> Iterator[Executor]:
    """This many processes for images, which are gone at the end; with 0, this process."""
    if not workers:
        yield Here()
        return
    # A fresh interpreter: copies of one that runs threads may wait for ever for a lock that nobody holds.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    executor = _Processes(workers, context, _begin, (stop,))
    try:
        yield executor
    except BaseException:
        stop.set()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


class _Processes(ProcessPoolExecutor):
    """They are started with Ctrl-C held back, which they inherit: it is meant for the process that writes."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(function, *arguments, **options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


_stopped: Any = threading.Event()


def is_stopped() -> bool:
    """In a process for images: whether its work is no longer wanted."""
    return bool(_stopped.is_set())


def _begin(stop: Any) -> None:
    """The start of a process for images, which ends when the process that writes is gone."""
    global _stopped
    guard()
    _stopped = stop
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
