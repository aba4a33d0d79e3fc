"""Hybrid: some visual tokens take their places among the words as with `splice`, others are looked at as with `cross_attention`, and the
text that a layout gives a view that is looked at stands beside its visual tokens, as embeddings of the language model.

NVLM-H (Dai et al. 2024, arXiv:2409.11402, section 4.4). Both kinds come out of one connector, so that visual tokens are as wide as the
language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmkit.fusion import fusions
from vlmkit.fusion.cross_attention import CrossAttention
from vlmkit.spec import SpecError


@fusions.register("hybrid")
@dataclass(frozen=True, kw_only=True)
class Hybrid(CrossAttention):
    """The fields are those of `cross_attention`; what looks at no image attends to nothing."""

    places_visual: ClassVar[bool] = True
    reads_tags: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.visual_dim is not None:
            raise SpecError(f"hybrid.visual_dim: visual tokens stand among words and are as wide as these; leave {self.visual_dim} out")
        if self.looks_at_none != "nothing":
            raise SpecError("hybrid.looks_at_none: expected 'nothing', for visual tokens that have places are not looked at as well")
