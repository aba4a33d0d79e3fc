"""How a learning rate goes over the updates of a stage, as a fraction of its peak.

`infinite` is the schedule that PaliGemma trains with (Beyer et al. 2024, arXiv:2407.07726): a linear warm-up, then a fall with the
inverse square root of the updates, which does not ask how many will follow, and a linear cool-down where one is wanted (Zhai et al.
2021, arXiv:2106.04560, section 3.5). The time scale is big_vision's, in which PaliGemma was trained (big_vision/utils.py).
"""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "constant", "infinite"]


def fraction_of_peak(
    schedule: Schedule,
    step: int,
    steps: int,
    *,
    warmup: int = 0,
    final: float = 0.0,
    timescale: int = 10_000,
    shift: int = 0,
    cooldown: int = 0,
) -> float:
    """What a peak rate is multiplied by in update `step` of `steps`, counted from 0. In (0, 1] while warming up, in [0, 1] after it.

    warmup: updates over which it rises. final: what is left at the end; `constant` never falls, and `infinite` comes to it only by its
    cool-down. The last three belong to `infinite`: after `timescale` updates it has fallen to 0.71 of its peak; `shift` updates lie behind
    it at the beginning; over the last `cooldown` updates it falls to `final` in a line.
    """
    if schedule == "infinite":
        fallen = 1 / math.sqrt(1 + (shift + max(0, step - warmup)) / timescale)
        if step < warmup:
            fallen *= (step + 1) / warmup
        left = min(1.0, (steps - step) / cooldown) if cooldown else 1.0
        end = min(final, fallen)
        return end + (fallen - end) * left
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    fall = 1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return final + (1 - final) * fall
