"""Cross-attention: visual tokens take no place in the sequence; layers put between those of the language model look at them.

Flamingo (Alayrac et al. 2022, arXiv:2204.14198), and in other forms Idefics (Laurencon et al. 2023, arXiv:2306.16527) and Llama 3.2-Vision
(Dubey et al. 2024, arXiv:2407.21783, section 7). Over any decoder of transformers that hands keyword arguments to its layers: a
layer runs in a hook before one of the decoder's, and what it looks at travels as an argument of the decoder's forward.

Which visual tokens a token looks at, the batch says (`visible`). What one does that looks at none is where published systems
differ:

                            Idefics     Llama 3.2-Vision, transformers     Llama 3.2-Vision, llama-models
    attention               nothing     all of the sample's images         nothing
    MLP                     runs        nothing                            nothing
    looks_at_none           "nothing"   "everything"                       "nothing"
    feeds                   "all"       "seeing"                           "seeing"

Keys and values of the visual tokens are kept beside the language model's own, in its cache: they are there once for all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vlmkit.activations import Activation
from vlmkit.fusion import fusions
from vlmkit.fusion.base import Fusion
from vlmkit.spec import SpecError


@fusions.register("cross_attention")
@dataclass(frozen=True, kw_only=True)
class CrossAttention(Fusion):
    """None as a size takes the language model's own."""

    before: int | tuple[int, ...] = 4
    """The language model's layers that have one before them, counted from 0; a single number n: every n-th, from the first on."""
    visual_dim: int | None = None
    """Width of visual tokens behind the connector."""
    heads: int | None = None
    kv_heads: int | None = None
    """Heads of keys and values; each serves heads / kv_heads heads of queries."""
    head_dim: int | None = None
    hidden: int | None = None
    """Channels inside the gated MLP."""
    activation: Activation = "silu"
    norm_eps: float | None = None
    qk_norm: bool = True
    """RMSNorm over the channels of each head of queries and keys."""
    gate: Literal["scalar", "vector"] = "scalar"
    """One number for a branch, or one a channel."""
    gate_start: float = 0.0
    gate_spread: float = 0.0
    """Gates begin with this mean and standard deviation."""
    looks_at_none: Literal["nothing", "everything"] = "nothing"
    """What the attention of a token that looks at no image gives: nothing, or what an attention to all that belongs to its sample's images
    gives, parts that a tower adds to an image included."""
    feeds: Literal["all", "seeing"] = "all"
    """Which tokens pass the MLP: all, or those that look at an image."""

    places_visual: ClassVar[bool] = False
    needs_visible: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("visual_dim", "heads", "kv_heads", "head_dim", "hidden"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SpecError(f"cross_attention.{name}: expected 1 or more, got {value}")
        if self.heads is not None and self.kv_heads is not None and self.heads % self.kv_heads:
            raise SpecError(f"cross_attention.kv_heads: {self.heads} heads do not share {self.kv_heads} heads of keys and values evenly")
        if self.norm_eps is not None and self.norm_eps <= 0:
            raise SpecError(f"cross_attention.norm_eps: expected more than 0, got {self.norm_eps}")
        if self.gate_spread < 0:
            raise SpecError(f"cross_attention.gate_spread: expected 0 or more, got {self.gate_spread}")
        before = self.before if isinstance(self.before, tuple) else (self.before - 1,)
        if not before or min(before) < 0 or sorted(set(before)) != list(before):
            raise SpecError(f"cross_attention.before: expected a number from 1 up, or rising numbers of layers from 0, got {self.before}")

    def dim_visual(self, dim: int) -> int:
        return dim if self.visual_dim is None else self.visual_dim

    def places(self, layers: int) -> tuple[int, ...]:
        """Before which of so many layers they stand. Raises SpecError for one that does not exist."""
        found = tuple(range(0, layers, self.before)) if isinstance(self.before, int) else self.before
        if max(found) >= layers:
            raise SpecError(f"cross_attention.before: layer {max(found)} of a language model that has {layers}, counted from 0")
        return found
