"""A plan in words."""

from __future__ import annotations

from collections.abc import Iterator

from vlmkit.planning.plan import Candidate, Plan


def lines(plan: Plan) -> Iterator[str]:
    """For people, a line at a time."""
    job, hardware = plan.job, plan.hardware
    stage = f", stage {job.name}" if job.name else ""
    but = f" without {', '.join(job.freezes)}" if job.freezes else ""
    worn = f" by adapters on {', '.join(path for path, _ in job.adapters)}" if job.adapters else ""
    yield (
        f"{job.model.name}{stage}: {', '.join(job.learns)}{but} learn{'s' if len(job.learns) == 1 else ''}{worn}, on {hardware.gpus} "
        f"GPU{'s' if hardware.gpus > 1 else ''} of {hardware.memory / 1e9:.0f} GB"
    )
    learning, total = (sum(part[number] for part in plan.parts.values()) for number in (1, 0))
    yield f"{total / 1e9:,.3f} billion parameters, {learning / 1e9:,.3f} billion of them learn"
    yield ""
    yield f"GB a GPU at the peak, micro-batch of {job.micro_batch} row{'s' if job.micro_batch > 1 else ''} of {job.length} tokens:"
    yield (
        f"{'engine':8} {'recompute':9} {'weights':>9} {'gradients':>9} {'optimizer':>9} {'activat.':>9} {'logits':>9} {'buffers':>9} "
        f"{'total':>9}  largest micro-batch"
    )
    for candidate in plan.candidates:
        yield _row(candidate)
    yield ""
    yield from _choice(plan)
    yield ""
    yield "Assumed:"
    for assumption in plan.assumptions:
        yield f"  {assumption}"


def _row(candidate: Candidate) -> str:
    takes = candidate.memory
    numbers = (takes.weights, takes.gradients, takes.optimizer, takes.activations, takes.logits, takes.buffers, takes.total)
    shown = " ".join(f"{number / 1e9:9.2f}" for number in numbers)
    fits = f"{candidate.largest} row{'s' if candidate.largest > 1 else ''}" if candidate.largest else "does not fit"
    return f"{candidate.engine:8} {'yes' if candidate.recompute else 'no':9} {shown}  {fits}"


def _choice(plan: Plan) -> Iterator[str]:
    job, hardware, chosen, pace = plan.job, plan.hardware, plan.chosen, plan.pace
    if chosen is None or pace is None:
        least = min(plan.candidates, key=lambda candidate: candidate.memory.total)
        recomputing = " with recomputation" if least.recompute else ""
        yield (
            f"Nothing fits: {least.engine}{recomputing} takes least, {least.memory.total / 1e9:.1f} GB of the {hardware.usable / 1e9:.1f} "
            "that can be used; take more GPUs, larger ones, shorter rows, or let fewer parts learn"
        )
        return
    yield (
        f"Cheapest that fits: {chosen.engine}, {'with' if chosen.recompute else 'without'} recomputation, {pace.rows} "
        f"row{'s' if pace.rows > 1 else ''} a micro-batch"
    )
    sent = chosen.traffic
    if sent.total:
        yield (
            f"A GPU sends {sent.total / 1e9:.1f} GB a micro-batch (all-gather {sent.all_gather / 1e9:.1f}, reduce-scatter "
            f"{sent.reduce_scatter / 1e9:.1f}): {pace.sending:.2f} s, beside {pace.seconds:.2f} s of computing"
        )
    yield f"{pace.tokens:,.0f} tokens/s and {pace.images:,.0f} images/s over all GPUs, {pace.flops / 1e12:,.0f} TFLOP a micro-batch"
    if pace.hours is not None and pace.gpu_hours is not None:
        price = "" if pace.price is None else f", {pace.price:,.0f} at the price given"
        yield f"{job.images:,} images: {pace.steps:,} steps, {pace.hours:,.1f} hours, {pace.gpu_hours:,.0f} GPU hours{price}"
    else:
        yield "For how many images nobody published: --images tells, and hours and cost with it"
