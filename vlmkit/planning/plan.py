"""The plan itself: memory under each engine, the cheapest engine that fits, communication, time and cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from vlmkit.planning.engines import ENGINES, Traffic, traffic
from vlmkit.planning.job import Hardware, Job, PlanError
from vlmkit.planning.memory import Memory, largest_micro_batch, memory
from vlmkit.planning.trace import Trace, trace

MFU = 0.4
"""Share of the peak that the model's own operations reach: Ai2 reports 0.41 for Olmo 3 32B on H100s, 0.43 for 7B."""


@dataclass(frozen=True)
class Candidate:
    """One engine, with and without recomputation."""

    engine: str
    recompute: bool
    memory: Memory
    """Of the asked micro-batch."""
    fits: bool
    largest: int
    """Rows of the largest micro-batch that fits; 0: none."""
    traffic: Traffic
    seconds_a_row: float | None
    """At the stated MFU with the largest micro-batch, what is recomputed on top, or of its traffic where that takes longer."""


@dataclass(frozen=True)
class Pace:
    """What a step takes, and the whole stage."""

    rows: int
    """Of a micro-batch of one GPU."""
    flops: float
    """The model's own operations of one micro-batch, without recomputation."""
    seconds: float
    """Of one micro-batch at the stated MFU."""
    tokens: float
    """Places of rows that all GPUs fill in a second."""
    images: float
    """That all GPUs see in a second."""
    sending: float
    """Seconds that the traffic of a micro-batch takes alone."""
    steps: int | None
    hours: float | None
    gpu_hours: float | None
    price: float | None


@dataclass(frozen=True)
class Plan:
    job: Job
    hardware: Hardware
    mfu: float
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    """The cheapest that fits; None where none does."""
    pace: Pace | None
    parts: dict[str, tuple[int, int]]
    """Parameters of each part, and how many of them learn."""
    assumptions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        job = self.job
        found: dict[str, Any] = {
            "model": job.model.name,
            "stage": job.name,
            "learns": list(job.learns),
            "freezes": list(job.freezes),
            "adapters": {path: adapter.to_dict() for path, adapter in job.adapters},
            "parts": {name: {"parameters": total, "learning": learning} for name, (total, learning) in self.parts.items()},
            "row": {
                "length": job.length,
                "micro_batch": job.micro_batch,
                "samples": job.samples_a_row,
                "visual_tokens": job.visual_tokens,
                "text_tokens": job.text_tokens,
                "supervised": job.supervised_a_row,
            },
            "dtype": job.dtype,
            "hardware": asdict(self.hardware) | {"usable": self.hardware.usable},
            "mfu": self.mfu,
            "engines": [_as_dict(candidate) for candidate in self.candidates],
            "chosen": None if self.chosen is None else {"engine": self.chosen.engine, "recompute": self.chosen.recompute},
            "pace": None if self.pace is None else asdict(self.pace),
            "images": job.images,
            "assumptions": list(self.assumptions),
        }
        return found


def _as_dict(candidate: Candidate) -> dict[str, Any]:
    found = asdict(candidate)
    found["memory"]["total"] = candidate.memory.total
    found["traffic"]["total"] = candidate.traffic.total
    return found


def plan(
    job: Job,
    hardware: Hardware,
    *,
    engine: str | None = None,
    recompute: bool | None = None,
    mfu: float = MFU,
    gpu_hour_price: float | None = None,
    largest: bool = True,
    traces: Mapping[bool, Trace] | None = None,
) -> Plan:
    """Plan a stage. The job's micro-batch is the least that has to fit; where `largest`, pace is that of the largest that fits.

    traces: of the job without and with recomputation, where they are known already: they are the same for any number of GPUs.
    engine: only this one. recompute: only with or only without; None: both are looked at, and the faster one is chosen.
    Raises PlanError for an engine that does not go with the number of GPUs, and for a model whose step cannot be traced.
    """
    engines = _engines(engine, hardware.gpus)
    if not 0 < mfu <= 1:
        raise PlanError(f"MFU is a share of the peak, more than 0 and at most 1, got {mfu}")
    if gpu_hour_price is not None and gpu_hour_price < 0:
        raise PlanError(f"the price of a GPU hour has to be 0 or more, got {gpu_hour_price}")
    if traces is None:
        traces = {again: trace(replace(job, recompute=again)) for again in ((False,) if recompute is False else (False, True))}
    # Operations are counted where nothing is recomputed: what is repeated is no progress.
    once = traces[False]
    candidates = tuple(
        _candidate(each, again, job, traces[again], hardware, mfu)
        for each in engines
        for again in (False, True)
        if again in traces and recompute in (None, again)
    )
    fitting = [candidate for candidate in candidates if candidate.fits]
    # The first of those that are equally fast: engines are in the order of what they send, and recomputing comes last.
    chosen = min(fitting, key=lambda found: found.seconds_a_row or 0.0) if fitting else None
    pace = None if chosen is None else _pace(job, hardware, once, chosen, mfu, gpu_hour_price, largest)
    return Plan(
        job=job,
        hardware=hardware,
        mfu=mfu,
        candidates=candidates,
        chosen=chosen,
        pace=pace,
        parts={name: (part.total, part.learning) for name, part in once.parts.items()},
        assumptions=_assumptions(job, hardware, mfu),
    )


def _engines(engine: str | None, gpus: int) -> tuple[str, ...]:
    if engine is not None and engine not in ENGINES:
        raise PlanError(f"no engine {engine!r}; there are {', '.join(ENGINES)}")
    if engine == "single" and gpus > 1:
        raise PlanError(f"engine 'single' is one GPU, and {gpus} are given; choose ddp, zero2, fsdp2 or zero3")
    if engine is not None:
        return (engine,)
    return ("single",) if gpus == 1 else ENGINES[1:]


def _candidate(engine: str, recompute: bool, job: Job, found: Trace, hardware: Hardware, mfu: float) -> Candidate:
    takes = memory(engine, job, found, hardware.gpus, job.micro_batch)
    largest = largest_micro_batch(engine, job, found, hardware)
    sent = traffic(engine, job, found, hardware.gpus)
    computing = found.flops / job.micro_batch / (mfu * hardware.peak)
    return Candidate(
        engine=engine,
        recompute=recompute,
        memory=takes,
        fits=takes.total <= hardware.usable,
        largest=largest,
        traffic=sent,
        seconds_a_row=max(computing, sent.total / hardware.bandwidth / largest) if largest else None,
    )


def _pace(job: Job, hardware: Hardware, once: Trace, chosen: Candidate, mfu: float, price: float | None, largest: bool) -> Pace:
    rows = chosen.largest if largest else job.micro_batch
    flops = once.flops * rows / job.micro_batch
    seconds = flops / (mfu * hardware.peak)
    images = job.samples_a_row * rows * hardware.gpus / seconds
    steps = hours = gpu_hours = None
    if job.images is not None:
        steps = -(-job.images // (job.samples_a_row * rows * hardware.gpus))
        hours = job.images / images / 3600
        gpu_hours = hours * hardware.gpus
    return Pace(
        rows=rows,
        flops=flops,
        seconds=seconds,
        tokens=rows * job.length * hardware.gpus / seconds,
        images=images,
        sending=chosen.traffic.total / hardware.bandwidth,
        steps=steps,
        hours=hours,
        gpu_hours=gpu_hours,
        price=None if price is None or gpu_hours is None else price * gpu_hours,
    )


def _assumptions(job: Job, hardware: Hardware, mfu: float) -> tuple[str, ...]:
    size = f"{job.size.width}x{job.size.height}"
    where = "within a machine" if hardware.gpus <= hardware.a_machine else "over machines"
    return (
        f"every image is {size}: {job.visual_tokens} visual tokens, with {job.text_tokens} tokens of text, "
        f"{job.samples_a_row} of them in a row of {job.length}; turns of the chat template are not counted",
        f"{job.dtype}, what learns kept in float32, AdamW; attention never makes S x S scores, and samples of a row do not see each other",
        "memory is counted from a step of this model on torch's meta device, scaled by the rows; on CPU this was within 5 % of the peak "
        "(benchmarks/plan.py), on a GPU it was never compared",
        "zero2, zero3 and fsdp2 divide by the rules of their code (vlmkit/planning/engines.py), which were not measured",
        f"of {hardware.memory / 1e9:.0f} GB a GPU {hardware.context / 1e9:g} GB go to CUDA and NCCL and {hardware.headroom:.0%} to gaps of "
        "the allocator",
        f"MFU {mfu:g} of {hardware.peak / 1e12:.0f} TFLOP/s, of the model's own operations: what is recomputed, waiting for data and "
        "communication that is not hidden are within it",
        f"between GPUs {hardware.bandwidth / 1e9:.0f} GB/s ({where})",
    )
