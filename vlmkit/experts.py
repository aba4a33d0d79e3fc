"""Experts: FFNs of a language model's layers become several, begun as copies of the one, of which a router chooses for each token.

MoE-LLaVA (Lin et al. 2024, arXiv:2401.15947) makes a vision-language model sparse so, in its last stage of training; sparse upcycling
(Komatsuzaki et al. 2022, arXiv:2212.05055) had it before. A token goes to its `top` experts, whose answers are summed with the router's
probabilities, brought to a sum of 1: copies answer as the one did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmkit.spec import Spec, SpecError

Chosen = Literal["all", "even", "first_half", "second_half"]


@dataclass(frozen=True, kw_only=True)
class Experts(Spec):
    """Which FFNs of a language model become experts, how many, and how tokens are spread among them."""

    count: int = 4
    """Experts of one layer."""
    top: int = 2
    """Those that a token goes to."""
    layers: Chosen | tuple[int, ...] = "even"
    """The layers, counted from 0; `even` is 0, 2, 4 and so on."""
    capacity: float | None = None
    """In training, how many tokens an expert takes at most, as a multiple of its equal share; those that come later pass it by. None: no
    bound. In evaluation there is none."""
    balance: float = 0.01
    """What the loss that spreads tokens evenly is multiplied by."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count < 2:
            raise SpecError(f"experts.count: a choice needs 2 experts or more, got {self.count}; leave experts out for one FFN")
        if not 2 <= self.top <= self.count:
            raise SpecError(
                f"experts.top: expected 2 to {self.count} (count), got {self.top}; the weight of a single expert would always be 1, from "
                "which a router learns nothing"
            )
        if self.capacity is not None and self.capacity <= 0:
            raise SpecError(f"experts.capacity: expected more than 0 equal shares, or None for no bound, got {self.capacity}")
        if self.balance < 0:
            raise SpecError(f"experts.balance: expected 0 or more, got {self.balance}")
        if isinstance(self.layers, tuple) and (not self.layers or len(set(self.layers)) < len(self.layers) or min(self.layers) < 0):
            raise SpecError(f"experts.layers: expected numbers of layers from 0 on, each once, got {self.layers}")

    def numbers(self, layers: int) -> tuple[int, ...]:
        """The numbers of the layers whose FFN becomes experts, of so many. Raises SpecError for one that there is not."""
        every = range(layers)
        if isinstance(self.layers, str):
            half = layers // 2
            named = {"all": every, "even": every[::2], "first_half": every[:half], "second_half": every[half:]}
            return tuple(named[self.layers])
        if max(self.layers) >= layers:
            raise SpecError(f"experts.layers: {max(self.layers)} is beyond the {layers} layers of the language model, counted from 0")
        return tuple(sorted(self.layers))
