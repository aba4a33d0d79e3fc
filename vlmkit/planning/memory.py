"""Bytes of a step."""

from __future__ import annotations

from vlmkit.planning.job import Job
from vlmkit.planning.trace import Trace


def single_peak(job: Job, trace: Trace) -> float:
    return 4 * trace.total + 8 * trace.learning + trace.buffers + max(map(sum, trace.moments))
