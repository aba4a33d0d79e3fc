"""Ctrl-C and SIGTERM: what a training run and its workers do about them. Loads no torch."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While it is entered, SIGINT and SIGTERM are remembered in `number` instead of ending the process.

    A second SIGINT ends it: somebody waits at a terminal. SIGTERM may come twice at once, to the process and to its group
    (`timeout`, torchrun), and means one thing; who sends it has SIGKILL for what does not end.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in STOP_SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        if number == signal.SIGINT:
            signal.signal(number, self._before[number])


@contextmanager
def stop_signals_held_back() -> Iterator[None]:
    """Worker processes are begun in here: they inherit it, so that no signal ends one before it ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_stop_signals(worker: int) -> None:
    """A worker process begins with this. Signals may reach every process of a terminal or a batch job; the training process
    alone decides what to do about them. A worker ends when that closes the loader, or is gone, which torch's workers look after."""
    for stop in STOP_SIGNALS:
        signal.signal(stop, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


@contextmanager
def quit_at_ctrl_c(message: str) -> Iterator[None]:
    """In here Ctrl-C ends the process at once, with status 130. It is for loading libraries: torch swallows the exception that it
    would be, and what is half imported fails later."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        print(message, file=sys.stderr, flush=True)
        os._exit(130)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
