"""A mark where an image is looked at by cross-attention, between two boundary tokens, of which one stands where two meet.

Idefics (Laurencon et al. 2023, arXiv:2306.16527). Words from the mark on look at this image alone, until the mark of another one. Two
images and words, F the boundary <fake_token_around_image>:

    F <image> F <image> F the second is looked at
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmkit.layout import layouts
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import Boundary, ImageTokens, Piece, Seen


@layouts.register("seen_fenced")
@dataclass(frozen=True, kw_only=True)
class SeenFenced(TokenLayout):
    """The placeholder is the mark."""

    boundary: str = "<fake_token_around_image>"
    """Special token around the mark."""

    placed: ClassVar[bool] = False
    looked_at: ClassVar[bool] = True

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        fence = Boundary(self.boundary, spaced=False)
        return (fence, Seen(self.placeholder), fence)

    def required_specials(self) -> tuple[str, ...]:
        return (*super().required_specials(), self.boundary)
