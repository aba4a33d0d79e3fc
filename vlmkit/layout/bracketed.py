"""A run of visual tokens between a start and an end token (Qwen-VL, arXiv:2308.12966; Qwen2-VL, arXiv:2409.12191; Janus-Pro,
arXiv:2501.17811)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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
    video_placeholder: str | None = None
    """The reserved token that fills the places of a film's visual tokens; None: the placeholder, as of a picture."""

    label: str = ""
    """Template text before an image, in which {} stands for its number in the conversation, from 1: "Picture {}: " of Qwen-VL-Chat. A
    template in Jinja writes its own."""

    later: ClassVar[frozenset[str]] = TokenLayout.later | {"video_placeholder", "label"}

    def before_image(self, number: int) -> str:
        return self.label.replace("{}", str(number + 1))

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        return (Trusted(self.start), Visual(0, image.count, self.video_placeholder if image.is_film else None), Trusted(self.end))

    @property
    def written(self) -> tuple[str, ...]:
        films = () if self.video_placeholder is None else (self.start + self.video_placeholder + self.end,)
        return (self.start + self.placeholder + self.end, *films)

    def required_specials(self) -> tuple[str, ...]:
        films = () if self.video_placeholder is None else (self.video_placeholder,)
        return (*super().required_specials(), self.start, self.end, *films)
