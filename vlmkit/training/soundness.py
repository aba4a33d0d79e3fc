"""What follows a loss or a gradient that is no number: the end of the run, or the next update. No weight is moved by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from vlmkit.training.stage import Stage
from vlmkit.training.update import Update

SHOWN = 20
"""Samples of a bad batch that are named."""


class DivergedError(ArithmeticError):
    """The loss or its gradient is no longer a number. No weight was moved by it, and the last saved state is from before."""


def is_sound(
    stage: Stage, step: int, update: Update, rates: Mapping[str, float], console: Console, taken: Callable[[], Sequence[str]]
) -> bool:
    """Whether loss and gradient are numbers. Where they are not: raises DivergedError, or says so where the stage skips such updates. Both
    name the samples of the last micro-batches (`taken`, asked by all processes), to look for what is wrong with them."""
    if math.isfinite(update.loss) and math.isfinite(update.norm):
        return True
    gradient = f", but its gradient's norm is {update.norm}" if math.isfinite(update.loss) else ""
    what = f"stage {stage.name}, step {step}: the loss is {update.loss:g}{gradient}"
    samples = _named(taken())
    if stage.nonfinite == "stop":
        raise DivergedError(f"{what}; lower the learning rate (its peak here is {max(rates.values()):g}){samples}")
    console.print(f"{what}; the update is skipped{samples}", highlight=False, markup=False, soft_wrap=True)
    return False


def _named(samples: Sequence[str]) -> str:
    if not samples:
        return ""
    more = f" and {len(samples) - SHOWN} more" if len(samples) > SHOWN else ""
    return f"; samples of its last micro-batch: {', '.join(samples[:SHOWN])}{more}"
