"""Tiles that are looked at by cross-attention, with tags among the words that count them: each tag looks at its own tile.

NVLM-X (Dai et al. 2024, arXiv:2409.11402, section 4.3): "we insert a sequence of text-based tile tags in the LLM decoder, while allowing
each tag to only attend to its corresponding image tokens". An image of two tiles and the whole, and what each part looks at:

    <Image>            what came before: the image before this one, or nothing
    <tile_1>           the first tile
    <tile_2>           the second
    <tile_global_thumbnail>    the whole, as one view
    </Image> words     all of the image, until the next image

The paper is silent on words behind an image; they look at all of its views, as Flamingo's (arXiv:2204.14198) do at the last image. Tags
are cut into tokens one by one, so that each token belongs to one. Of a film words see all frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vlmkit.layout import layouts
from vlmkit.layout.numbered_tiles import NumberedTiles
from vlmkit.layout.pieces import ImageTokens, Piece, Seen, Trusted


@layouts.register("seen_tiles")
@dataclass(frozen=True, kw_only=True)
class SeenTiles(NumberedTiles):
    """The placeholder stands nowhere: it is what prompts write in the place of an image."""

    placed: ClassVar[bool] = False
    looked_at: ClassVar[bool] = True

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        tags = [Seen(view.tag, view.start, view.length) for view in self.tagged(image)]
        return (Trusted(self.start), *tags, Seen(self.end))
