"""A run of visual tokens between a start and an end token (Qwen-VL, arXiv:2308.12966; Janus-Pro, arXiv:2501.17811)."""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.layout import layouts
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import ImageTokens, Piece, Trusted, Visual


@layouts.register("bracketed")
@dataclass(frozen=True, kw_only=True)
class Bracketed(TokenLayout):
    start: str
    """Special token before the image."""
    end: str
    """Special token after the image."""

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        return (Trusted(self.start), Visual(0, image.count), Trusted(self.end))

    def required_specials(self) -> tuple[str, ...]:
        return (*super().required_specials(), self.start, self.end)
