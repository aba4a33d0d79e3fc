"""A limit of time for Python code from elsewhere, such as a template's loops: it costs next to nothing where the code is quick.

The time is what the code's own thread computed, where the system tells it: a busy machine, or a process that was suspended, stops nothing.
One thread for all looks twice a second. It stops what runs between two instructions of Python, and not a single call into C.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

_EVERY, _IDLE = 0.5, 10.0


class _Over(BaseException):
    """Raised in the middle of code that may catch any Exception."""


class _Watch:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ends: dict[int, tuple[Callable[[], float], float]] = {}
        """Of each thread its clock, and when on it the time is over."""
        self.stopped: set[int] = set()
        self.last = 0.0
        self.thread: threading.Thread | None = None

    def begin(self, seconds: float) -> None:
        own = threading.get_ident()
        clock = _clock_of(own)
        with self.lock:
            self.last = time.monotonic()
            self.ends[own] = clock, clock() + seconds
            if self.thread is None:
                self.thread = threading.Thread(target=self._look, name="time limit", daemon=True)
                self.thread.start()

    def end(self) -> bool:
        """Whether the code was stopped, or is about to be."""
        with self.lock:
            own = threading.get_ident()
            self.ends.pop(own, None)
            stopped = own in self.stopped
            self.stopped.discard(own)
            return stopped

    def _look(self) -> None:
        while True:
            time.sleep(_EVERY)
            with self.lock:
                now = time.monotonic()
                for thread in [thread for thread, (clock, end) in self.ends.items() if end < clock()]:
                    del self.ends[thread]
                    self.stopped.add(thread)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Over))
                if not self.ends and now - self.last > _IDLE:
                    self.thread = None
                    return


def _clock_of(thread: int) -> Callable[[], float]:
    """Seconds that a thread has computed; macOS and Windows tell them of one's own thread alone, and there it is time that passes."""
    if sys.platform == "linux":
        return partial(time.clock_gettime, time.pthread_getcpuclockid(thread))
    return time.monotonic


_watch = _Watch()


def _anew() -> None:
    global _watch
    _watch = _Watch()


os.register_at_fork(after_in_child=_anew)


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Raise TimeoutError, saying what took so long, where the code inside takes longer. Not to be nested."""
    _watch.begin(seconds)
    caught = False
    try:
        yield
    except _Over:
        caught = True
    finally:
        if _watch.end() and not caught:
            try:
                for _ in range(200):  # it comes at one of the next instructions
                    time.sleep(0.01)
            except _Over:
                caught = True
    if caught:
        raise TimeoutError(f"{what} takes longer than {seconds:g} seconds")
