"""The contract of a fusion: visual tokens and text embeddings become what the language model is called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from vlmkit.fusion import fusions
from vlmkit.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from vlmkit.features import Features, View
    from vlmkit.fusion.module import FusionModule
    from vlmkit.layout.base import TokenLayout


class FusionError(ValueError):
    """Visual tokens and their places do not fit together."""


class Incoming(NamedTuple):
    """What meets in a fusion."""

    embeddings: Tensor
    """Text embeddings (B, S, D_lm), with a placeholder's wherever a visual token will stand."""
    visual: Features | None = None
    """Visual tokens (T, D_lm); None where the batch has no images, or they are in the cache already."""
    visual_index: Tensor | None = None
    """(B, S): the visual token that stands there, -1 for everything else; None: nothing but text."""
    learned_index: Tensor | None = None
    """(B, S): the number of the learned embedding that stands there, -1 for everything else; None: there are none."""
    visible: Tensor | None = None
    """(B, S, 2): the first visual token that this token may look at, and the one behind the last; of a token that looks at no image the
    other way round, the one behind the last and the first of all images of its sample, or twice the same where that has none. None unless
    the fusion asks for it."""
    segments: Tensor | None = None
    """(B, S): the number of the sample within its row, -1 where nothing stands; None behind a cache, and where `attention_mask` says
    all that there is to say."""
    attention_mask: Tensor | None = None
    """(B, S), or None for no padding."""
    position_ids: Tensor | None = None
    """(B, S), or (3, B, S): time, row and column; or None."""
    cache: Any = None
    """The language model's cache of keys and values, or None."""
    token_type_ids: Tensor | None = None
    """(B, S): 0 in the prefix, 1 from the assistant's first word on; None unless the fusion asks for it."""
    views: tuple[View, ...] = ()
    """What the batch states of each view of the first tower; of none where it has no images."""


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
        """The module, on the current default device. It may put layers into the language model, and owns them."""
        raise NotImplementedError
