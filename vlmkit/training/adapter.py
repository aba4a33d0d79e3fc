"""Low-rank adapters of a part, as data: LoRA (Hu et al. 2021, arXiv:2106.09685), DoRA (Liu et al. 2024, arXiv:2402.09353) and QLoRA
(Dettmers et al. 2023, arXiv:2305.14314).

    W x  ->  W x + alpha / rank * B A x        A (rank, in) drawn, B (out, rank) zero: nothing changes before the first update

Which part an adapter is on is said where it is used, by the path of the part:

    {"connector": Adapter(rank=8), "language_model": Adapter(rank=64, modules=("q_proj", "v_proj"))}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from vlmkit.spec import Spec, SpecError


@dataclass(frozen=True, kw_only=True)
class Adapter(Spec):
    rank: int = 16
    """Rows of A, columns of B."""
    alpha: float = 32.0
    """What B A x is multiplied by, times the rank."""
    dropout: float = 0.0
    """Share of an adapter's inputs that is dropped while training."""
    dora: bool = False
    """Learn the length of each row of the weight apart from its direction. PEFT says it once for a model: all adapters, or none."""
    quantize: Literal["nf4"] | None = None
    """Hold the weight below in four bits (QLoRA): needs bitsandbytes, the extra `qlora`."""
    modules: str | tuple[str, ...] | None = None
    """Which linear layers of the path: ends of their names ("q_proj", "mlp.fc1"), or one regular expression that the whole name below the
    path has to match; None for all of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise SpecError(f"adapter.rank: expected 1 or more, got {self.rank}")
        if self.alpha <= 0:
            raise SpecError(f"adapter.alpha: expected more than 0, got {self.alpha}; an adapter that does nothing is one to leave out")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"adapter.dropout: expected a share from 0 up to 1, got {self.dropout}")
        if isinstance(self.modules, str):
            try:
                re.compile(self.modules)
            except re.error as error:
                raise SpecError(f"adapter.modules: {self.modules!r} is no regular expression: {error}") from None
        if self.modules is not None and (not self.modules or not all(self.modules)):
            raise SpecError(f"adapter.modules: expected names, or None for every linear layer of the path, got {self.modules!r}")

    def takes(self, name: str) -> bool:
        """Whether it is on the linear layer of that name, counted from the path."""
        if self.modules is None:
            return True
        if isinstance(self.modules, str):
            return re.fullmatch(self.modules, name) is not None
        return any(name == ending or name.endswith(f".{ending}") for ending in self.modules)
