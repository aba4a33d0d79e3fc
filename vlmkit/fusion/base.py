"""The contract of a fusion: visual tokens and text embeddings become what the language model is called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vlmkit.fusion import fusions
from vlmkit.fusion.incoming import FusionError as FusionError
from vlmkit.fusion.incoming import Incoming as Incoming
from vlmkit.spec import Spec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlmkit.fusion.module import FusionModule
    from vlmkit.layout.base import TokenLayout


@dataclass(frozen=True, kw_only=True)
class Fusion(Spec):
    """Base of fusions."""

    registry = fusions

    needs_prefix: ClassVar[bool] = False
    """Whether a batch has to say which tokens are the prefix (token_type_ids)."""
    needs_visible: ClassVar[bool] = False
    """Whether a batch has to say which visual tokens each token may look at (visible), which then take no places in the sequence."""

    def problems(self, layout: TokenLayout) -> list[str]:
        """Why the fusion cannot go with this layout; empty if it can."""
        if layout.looked_at == self.needs_visible:
            return []
        if layout.looked_at:
            return [
                f"layout {layout.kind!r} gives visual tokens 0 places, for they are looked at, but fusion {self.kind!r} puts each of them "
                "in 1; use fusion 'cross_attention', or a layout such as 'run'"
            ]
        return [
            f"fusion {self.kind!r} looks at visual tokens that take 0 places, but layout {layout.kind!r} gives each of them 1; use a "
            "layout such as 'seen'"
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
