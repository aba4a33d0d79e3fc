"""Bytes of one GPU at the peak of a step, by what they are for, under each engine."""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.planning.engines import Fixed, fixed
from vlmkit.planning.job import Hardware, Job
from vlmkit.planning.trace import Moment, Trace


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU at the moment at which it holds most."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    buffers: float
    """Gathered weights, buckets of communication, casts."""

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.buffers


def rows_scale(job: Job, rows: int) -> float:
    """How much more logits so many rows have than one micro-batch of `job`.

    A column goes through the LM head in every row where one row supervises it. With p of a row's columns supervised, and samples of
    different lengths, B rows have B (1 - (1 - p)^B) times a row's columns.
    """

    def columns(count: int) -> float:
        return count * (1 - (1 - job.supervised_a_row / job.length) ** count)

    return columns(rows) / columns(1) if job.micro_batch == 1 else rows / job.micro_batch


def memory(engine: str, job: Job, trace: Trace, gpus: int, rows: int) -> Memory:
    """Of a micro-batch of `rows`. Activations grow with the rows; those of the traced step are scaled.

    The peak is that of the sum: activations fall while gradients rise, and where gradients are spread the peak is earlier.
    """
    return _at_peak(fixed(engine, job, trace, gpus), trace.moments, rows / job.micro_batch, rows_scale(job, rows))


def _at_peak(stands: Fixed, moments: tuple[Moment, ...], scale: float, of_logits: float) -> Memory:
    def at(moment: Moment) -> float:
        return moment[0] * scale + moment[1] * of_logits + moment[2] * stands.gradient_scale

    highest = max(moments, key=at)
    last = moments[-1]
    during = Memory(
        stands.weights,
        highest[2] * stands.gradient_scale,
        stands.optimizer,
        highest[0] * scale,
        highest[1] * of_logits,
        stands.buffers,
    )
    update = Memory(stands.weights, last[2] * stands.gradient_scale, stands.optimizer, 0.0, 0.0, stands.buffers + stands.update)
    return max(during, update, key=lambda found: found.total)


def largest_micro_batch(engine: str, job: Job, trace: Trace, hardware: Hardware) -> int:
    """Most rows of a micro-batch that fit; 0 where not even one does."""

    def fits(rows: int) -> bool:
        return memory(engine, job, trace, hardware.gpus, rows).total <= hardware.usable

    if not fits(1):
        return 0
    high = 2
    while fits(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
