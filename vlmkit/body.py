"""A model without its head: what libraries call `base_model`, for hidden states where logits of all tokens would be most of the memory.

TRL's losses project these hidden states themselves, token by token. Nothing is held here twice: the body calls the model's own parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput


@dataclass
class BodyOutput(ModelOutput):  # type: ignore[misc]
    """What a language model's decoder gives."""

    last_hidden_state: Tensor | None = None
    """(B, S, D_lm), as the head takes it."""
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    router_logits: tuple[Tensor, ...] | None = None
    visual: Tensor | None = None
    """(T, D_lm): visual tokens, where images were given."""


class Body:
    """Takes what the model takes, but for labels, and gives a BodyOutput."""

    _tp_plan: dict[str, str] | None = None
    _pp_plan: dict[str, Any] | None = None

    def __init__(self, of: PreTrainedModel) -> None:
        self._of = of

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # The class's own: an object's forward may be another one, which calls this body.
        return type(self._of).forward(self._of, *args, **kwargs, headless=True)


def without_head(outputs: Any, rows: int) -> BodyOutput:
    """What the decoder gave, in so many rows."""
    hidden, layers = outputs.last_hidden_state, getattr(outputs, "hidden_states", None)
    return BodyOutput(
        last_hidden_state=hidden.view(rows, -1, hidden.shape[-1]),
        hidden_states=None if layers is None else tuple(layer.view(rows, -1, layer.shape[-1]) for layer in layers),
        attentions=getattr(outputs, "attentions", None),
        router_logits=getattr(outputs, "router_logits", None),
    )
