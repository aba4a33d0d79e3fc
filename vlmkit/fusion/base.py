"""The contract of a fusion: visual tokens and text embeddings become what the language model is called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from vlmkit.fusion import fusions
from vlmkit.fusion.incoming import FusionError as FusionError
from vlmkit.fusion.incoming import Incoming as Incoming
from vlmkit.spec import Spec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlmkit.fusion.module import FusionModule
    from vlmkit.layout.base import TokenLayout


class _Way(NamedTuple):
    """One of the ways in which visual tokens meet words."""

    places: str
    """What a layout gives them."""
    does: str
    """What a fusion does with them."""
    fusion: str
    layout: str


_WAYS = {
    (True, False): _Way("1 place each", "puts each of them in 1", "splice", "run"),
    (False, True): _Way("0 places, for they are looked at", "looks at visual tokens that take 0 places", "cross_attention", "seen"),
    (True, True): _Way("1 place each, or 0 where they are looked at", "does both, with 1 place and with 0", "hybrid", "seen_tiles_beside"),
}
"""By whether they are placed, and whether they are looked at."""


@dataclass(frozen=True, kw_only=True)
class Fusion(Spec):
    """Base of fusions."""

    registry = fusions

    needs_prefix: ClassVar[bool] = False
    """Whether a batch has to say which tokens are the prefix (token_type_ids)."""
    places_visual: ClassVar[bool] = True
    """Whether visual tokens take places in the sequence, those that a batch's visual_index names."""
    needs_visible: ClassVar[bool] = False
    """Whether a batch has to say which visual tokens each token may look at (visible). Such tokens take no places in the sequence."""
    reads_tags: ClassVar[bool] = False
    """Whether text that a layout gives a view that is looked at is looked at with it."""

    def problems(self, layout: TokenLayout) -> list[str]:
        """Why the fusion cannot go with this layout; empty if it can."""
        ours, theirs = _WAYS[self.places_visual, self.needs_visible], _WAYS[layout.placed, layout.looked_at]
        if ours == theirs:
            return []
        return [
            f"layout {layout.kind!r} gives visual tokens {theirs.places}, but fusion {self.kind!r} {ours.does}; use fusion "
            f"{theirs.fusion!r}, or a layout such as {ours.layout!r}"
        ]

    def dim_visual(self, dim: int) -> int:
        """Width of the visual tokens that it takes from the connector, for a language model of this width."""
        return dim

    def build(self, language_model: PreTrainedModel, layout: TokenLayout) -> FusionModule:
        """The module, on the current default device. It may put layers into the language model, and owns them.

        vlmkit's own stand beside their descriptions, in fusion/<kind>_module.py.
        """
        module: FusionModule = fusions.built(self, "module", language_model, layout)
        return module
