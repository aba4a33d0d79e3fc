"""What each engine keeps on a GPU, what it holds for a moment, and what it sends.

The rules are those of the engines' own code as vlmkit configures them (torch 2.15, DeepSpeed 0.19); N processes share what is divided:

    what learns, in bfloat16   weights                  gradients        float32 copy and AdamW's two moments
    single, ddp                4 (float32) + 2 (cast)   4                8
    zero2                      2                        2 / N            12 / N
    zero3                      2 / N                    2 / N            12 / N
    fsdp2                      4 / N                    4 / N            8 / N

bytes a parameter. What is frozen takes 2, or 2 / N under zero3 and fsdp2. In float32 there is no copy: 4, 4 and 8. Of these only
"single" was measured (benchmarks/plan.py, on a CPU); the other engines were never compared with a GPU's allocator.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.planning.job import Job
from vlmkit.planning.trace import Trace

ENGINES = ("single", "ddp", "zero2", "fsdp2", "zero3")
"""From the least communication to the most; of the last two, fsdp2 needs nothing beside torch."""
BUCKET = 50_000_000
"""Values that ZeRO reduces, or fetches ahead, at once."""
LIVE = 1_000_000_000
"""Gathered values that ZeRO-3 keeps for a second use, at most: DeepSpeed's default."""


@dataclass(frozen=True)
class Fixed:
    """Bytes of a GPU that do not depend on the micro-batch."""

    weights: float
    gradient_scale: float
    """Bytes kept of each byte of gradient that the traced step made."""
    optimizer: float
    buffers: float
    """Whole weights of layers that compute, buckets, casts, and the model's own buffers."""
    update: float
    """What the update itself holds, when no activation is left."""


@dataclass(frozen=True)
class Traffic:
    """Bytes that one GPU sends (and receives as many) for one micro-batch and one update."""

    all_gather: float
    reduce_scatter: float

    @property
    def total(self) -> float:
        return self.all_gather + self.reduce_scatter


def fixed(engine: str, job: Job, trace: Trace, gpus: int) -> Fixed:
    """What stands on each GPU."""
    learning, frozen = trace.learning, trace.total - trace.learning
    low = 2 if job.dtype == "bfloat16" else 4
    half = low == 2
    block, outside = trace.largest_block, trace.outside_blocks
    share = 1 / gpus
    match engine:
        case "single" | "ddp":
            # Gradients are float32 as the weights are; the trace made them in the precision of the computation.
            cast = 2 * learning if half else 0
            buckets = 4 * learning if engine == "ddp" else 0
            return Fixed(4 * learning + low * frozen, 4 / low, 8 * learning, trace.buffers + cast + buckets, 0)
        case "zero2":
            copies = (4 if half else 0) * learning * share
            update = 4 * learning * share if half else 0
            buckets = 2 * low * min(BUCKET, learning)
            return Fixed(low * trace.total, share, 8 * learning * share + copies, trace.buffers + buckets, update)
        case "zero3":
            copies = (4 if half else 0) * learning * share
            update = 4 * learning * share if half else 0
            gathered = low * min(trace.total, max(LIVE, outside) + block + BUCKET)
            buckets = low * min(BUCKET, learning)
            return Fixed(low * trace.total * share, share, 8 * learning * share + copies, trace.buffers + gathered + buckets, update)
        case "fsdp2":
            # A unit computes, the next one is gathered and copied out of its buffer; the root unit stays gathered. Gradients of a unit
            # are whole until they are reduced in float32.
            gathered = low * min(trace.total, outside + 3 * block)
            reduced = (low + 4) * min(learning, max(block, outside)) if learning else 0
            weights = (4 * learning + low * frozen) * share
            return Fixed(weights, 4 / low * share, 8 * learning * share, trace.buffers + gathered + reduced, 0)
    raise AssertionError(engine)


def traffic(engine: str, job: Job, trace: Trace, gpus: int) -> Traffic:
    """Of one micro-batch whose update follows. Weights are gathered for the forward pass, and again for the backward pass where it goes
    through them; recomputing a layer takes no third time."""
    away = (gpus - 1) / gpus
    low = 2 if job.dtype == "bfloat16" else 4
    match engine:
        case "single":
            return Traffic(0, 0)
        case "ddp":  # a reduction to all is a reduce-scatter and an all-gather, here of float32 gradients
            return Traffic(4 * trace.learning * away, 4 * trace.learning * away)
        case "zero2":
            return Traffic(low * trace.learning * away, low * trace.learning * away)
    gathers = sum(part.total * (2 if part.gradient_passes else 1) for part in trace.parts.values())
    reduced = 4 if engine == "fsdp2" else low
    return Traffic(low * gathers * away, reduced * trace.learning * away)
