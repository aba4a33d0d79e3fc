"""What meets in a fusion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from vlmkit.features import Features, View


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
    """(B, S), or None for no padding; or (B, 1, S, S), which says alone what each token sees."""
    position_ids: Tensor | None = None
    """(B, S), or (3, B, S): time, row and column; or None."""
    cache: Any = None
    """The language model's cache of keys and values, or None."""
    token_type_ids: Tensor | None = None
    """(B, S): 0 in the prefix, 1 from the assistant's first word on; None unless the fusion asks for it."""
    views: tuple[View, ...] = ()
    """What the batch states of each view of the first tower; of none where it has no images."""
    tags: tuple[Tensor, Tensor] | None = None
    """Embeddings (V, L, D_lm) of the text of each view that is looked at with it, and which of them are there (V, L); None unless the
    fusion asks for it."""
    maskless: bool = False
    """Whether attention is told where samples begin (see vlmkit.attention), and wants no mask."""
