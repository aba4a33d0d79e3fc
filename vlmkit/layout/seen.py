"""A mark where an image is looked at by cross-attention: the image takes this one place, and its visual tokens none.

Llama 3.2-Vision (Dubey et al. 2024, arXiv:2407.21783). Words from the mark on look at the image, until the mark of another one; where
marks stand one right behind the other, words behind them look at all of these images. Two images, words, another image:

    <|image|><|image|> both are looked at <|image|> the third is looked at
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmkit.layout import layouts
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import ImageTokens, Piece, Seen


@layouts.register("seen")
@dataclass(frozen=True, kw_only=True)
class SeenMark(TokenLayout):
    """The placeholder is the mark."""

    placed: ClassVar[bool] = False
    looked_at: ClassVar[bool] = True
    neighbours_together: ClassVar[bool] = True

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        return (Seen(self.placeholder),)
