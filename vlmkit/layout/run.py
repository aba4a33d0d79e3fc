"""A plain run: the visual tokens of an image one after the other, nothing around them (LLaVA, arXiv:2304.08485)."""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.layout import layouts
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import ImageTokens, Piece, Visual


@layouts.register("run")
@dataclass(frozen=True, kw_only=True)
class Run(TokenLayout):
    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        return (Visual(0, image.count),)
