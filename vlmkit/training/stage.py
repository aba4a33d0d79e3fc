"""A training stage as data: what learns and how fast, on what, for how long.

A part that has no learning rate is frozen in the stage:

    Stage(name="align", steps=1000, batch_size=64, connector=1e-3, data=(Source(name="captions"),))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Self

from vlmkit.architecture import PARTS
from vlmkit.spec import Spec, SpecError


@dataclass(frozen=True, kw_only=True)
class Source(Spec):
    """A data set of the mix, by the name that the recipe knows it by."""

    name: str
    weight: float = 1.0
    """Share of the samples, relative to the other sources."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight <= 0:
            raise SpecError(f"source {self.name!r}: the weight has to be more than 0, got {self.weight}; leave the source out instead")


@dataclass(frozen=True, kw_only=True)
class Stage(Spec):
    name: str
    steps: int
    """Updates of the weights."""
    batch_size: int
    """Samples in one micro-batch of one process, or packed rows; an update sees `batch_size * accumulate * processes` of them."""
    data: tuple[Source, ...]
    encoder: float | None = None
    """Peak learning rate of the vision tower; None freezes it. The next three fields alike."""
    connector: float | None = None
    fusion: float | None = None
    language_model: float | None = None
    head: float | None = None
    """Peak learning rate of a module that a recipe adds for this stage only and throws away after it."""
    accumulate: int = 1
    """Micro-batches whose gradients make one update."""
    warmup: int = 0
    """Updates over which the rates rise from 0 to their peak."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rates fall from the peak after warming up."""
    final: float = 0.0
    """What is left of the peak at the end, as a fraction; `constant` ignores it."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` (Jordan et al. 2024) updates the matrices inside blocks and leaves all else to AdamW."""
    muon_scale: float = 10.0
    """Learning rate of matrices under Muon, as a multiple of the part's rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    """On matrices only: norms, biases and other vectors never decay."""
    clip: float = 1.0
    """Norm that the gradient of all learning parameters is cut to."""
    pack: bool = False
    """Put as many samples into a row of `max_length` tokens as it holds, instead of padding each to the longest."""
    max_length: int | None = None
    """Longest conversation in tokens, and the length of packed rows; a longer one loses its last turns, with the images of these."""
    compile: bool = False
    recompute: bool = False
    """Recompute activations in the backward pass (gradient checkpointing): a third more work, far less memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        where = f"stage {self.name!r}"
        for field in ("steps", "batch_size", "accumulate"):
            if getattr(self, field) < 1:
                raise SpecError(f"{where}: {field} has to be 1 or more, got {getattr(self, field)}")
        rates = {part: rate for part in (*PARTS, "head") if (rate := getattr(self, part)) is not None}
        if not rates:
            raise SpecError(f"{where}: nothing learns; give a learning rate to at least one of {', '.join(PARTS)}")
        if wrong := {part: rate for part, rate in rates.items() if rate <= 0}:
            raise SpecError(f"{where}: learning rates have to be more than 0 (None freezes a part), got {wrong}")
        if not 0 <= self.warmup <= self.steps:
            raise SpecError(f"{where}: warmup has to be between 0 and the {self.steps} steps, got {self.warmup}")
        for field, fits in (("final", 0 <= self.final <= 1), ("weight_decay", self.weight_decay >= 0), ("clip", self.clip > 0)):
            if not fits:
                raise SpecError(f"{where}: {field} cannot be {getattr(self, field)}")
        if self.pack and self.max_length is None:
            raise SpecError(f"{where}: packed rows are all of one length; give max_length")
        if not self.data or len({source.name for source in self.data}) < len(self.data):
            raise SpecError(f"{where}: it needs data, each source once; got {[source.name for source in self.data]}")

    def learns(self, part: str) -> bool:
        return getattr(self, part) is not None

    def factor(self, step: int) -> float:
        """What the peak rates are multiplied by in update `step`, counted from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.schedule == "constant":
            return 1.0
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        fall = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.final + (1 - self.final) * fall

    def scaled(self, fraction: float) -> Self:
        """The same stage with a fraction of its updates, at least one."""
        steps = max(1, round(self.steps * fraction))
        return self.replace(steps=steps, warmup=min(steps, round(self.warmup * fraction)))
