"""How much memory something takes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Bytes that the process grew by at most; where the system does not say, the test is skipped."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not reset.exists():
        pytest.skip("peak memory is read from /proc")

    def high_water() -> int:
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024

    reset.write_text("5")
    before = high_water()
    yield lambda: high_water() - before
