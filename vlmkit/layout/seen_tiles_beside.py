"""The whole image among the words, its tiles looked at by cross-attention, each with a tag that counts it.

NVLM-H (Dai et al. 2024, arXiv:2409.11402, section 4.4): "the thumbnail image tokens are fed into the LLM alongside text tokens [...] a
dynamic number of regular tiles are processed through gated cross-attention", and "text embeddings of <tile_k> are integrated into the
gated cross-attention layers alongside visual embeddings". An image of two tiles and the whole:

    among the words    <Image> tokens of the whole </Image>
    looked at          <tile_1> tokens <tile_2> tokens

The paper is silent on who looks: everything from <Image> on, tokens of the whole image included, until the next image. Words behind an
image of one view look at nothing. Of a film the frames' tiles are looked at together, and so are their whole pictures in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmkit.layout import layouts
from vlmkit.layout.numbered_tiles import NumberedTiles
from vlmkit.layout.pieces import ImageTokens, Piece, Seen, Trusted, Visual
from vlmkit.spec import SpecError

COUNTED = 99
"""A batch has room for the tokens of the longest tag up to this number; longer ones make it wider."""


@layouts.register("seen_tiles_beside")
@dataclass(frozen=True, kw_only=True)
class SeenTilesBeside(NumberedTiles):
    """A render of the plan that was cut is looked at, one that was not has places."""

    whole: str = ""
    """Before the tokens of the whole image, among the words."""

    looked_at: ClassVar[bool] = True
    tags_views: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.start:
            raise SpecError("seen_tiles_beside.start: expected text before an image, from which on its tiles are looked at, got ''")

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        views = list(self.tagged(image))
        tiles = [view for view in views if not view.whole]
        first = tiles[0].start if tiles else 0
        pieces: list[Piece] = [Seen(self.start, first, tiles[-1].start + tiles[-1].length - first if tiles else 0)]
        for view in views:
            if view.whole:
                pieces += [Trusted(view.tag), Visual(view.start, view.length)]
        return (*pieces, Trusted(self.end))

    def tags(self, image: ImageTokens) -> tuple[str, ...]:
        return tuple("" if view.whole else view.tag for view in self.tagged(image))

    @property
    def some_tags(self) -> tuple[str, ...]:
        return tuple(self.tile.format(number=number) for number in range(1, COUNTED + 1))
