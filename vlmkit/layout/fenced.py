"""A boundary token before and after every view, one where two of them meet (Idefics2, arXiv:2405.02246).

Two images side by side, then a word, F the boundary <fake_token_around_image>:

    F tokens F tokens F word
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.layout import layouts
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import Boundary, ImageTokens, Piece, Visual


@layouts.register("fenced")
@dataclass(frozen=True, kw_only=True)
class Fenced(TokenLayout):
    boundary: str = "<fake_token_around_image>"
    """Special token around every view. A word right behind it is set off by a space."""

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        pieces: list[Piece] = [Boundary(self.boundary)]
        start = 0
        for grid in image.grids:
            pieces += [Visual(start, grid.tokens), Boundary(self.boundary)]
            start += grid.tokens
        return tuple(pieces)

    def required_specials(self) -> tuple[str, ...]:
        return (*super().required_specials(), self.boundary)
