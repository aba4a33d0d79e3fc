"""How what lies under one path of a model learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlmkit.spec import Spec, SpecError
from vlmkit.training.schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class Learn(Spec):
    """Rates of one path of a model (see vlmkit.training.paths). What is None is the stage's own."""

    rate: float
    """Peak learning rate."""
    schedule: Schedule | None = None
    warmup: int | None = None
    """Updates over which the rate rises from 0 to its peak: PaliGemma warms its tower slowly."""
    final: float | None = None
    """What is left of the peak at the end, as a fraction."""
    weight_decay: float | None = None
    """On matrices only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate <= 0:
            raise SpecError(f"a learning rate has to be more than 0 (None freezes a path), got {self.rate}")
        if self.warmup is not None and self.warmup < 0:
            raise SpecError(f"warmup has to be 0 or more, got {self.warmup}")
        if self.final is not None and not 0 <= self.final <= 1:
            raise SpecError(f"final has to be between 0 and 1, got {self.final}")
        if self.weight_decay is not None and self.weight_decay < 0:
            raise SpecError(f"weight_decay has to be 0 or more, got {self.weight_decay}")

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_dict().items() if value is not None}
