"""Tiles behind tags that count them, the whole image behind one of its own, all between a start and an end.

NVLM (Dai et al. 2024, arXiv:2409.11402, section 4.2 and appendix E), as hub nvidia/NVLM-D-72B writes it (modeling_nvlm_d.py). An image of
two tiles and the whole:

    <Image><tile_1> tokens <tile_2> tokens <tile_global_thumbnail> tokens </Image>

An image that is seen whole alone has the tag of the whole. Start, tags and end are ordinary words of the language model, unless its
tokenizer knows them as tokens; they merge with words before them as any text does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from vlmkit.layout import layouts
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import ImageTokens, Piece, Trusted, Visual
from vlmkit.spec import SpecError


class Tagged(NamedTuple):
    """A view behind its tag: visual tokens `start` to `start + length` of its image."""

    tag: str
    start: int
    length: int
    whole: bool
    """Whether it is a picture of the whole image."""


@layouts.register("numbered_tiles")
@dataclass(frozen=True, kw_only=True)
class NumberedTiles(TokenLayout):
    """A render of the plan that was cut is tiles, one that was not is the whole image."""

    start: str = "<Image>"
    """Before an image."""
    end: str = "</Image>"
    """Behind it."""
    tile: str = "<tile_{number}>"
    """Before a tile's tokens; counts from 1 in raster order."""
    whole: str = "<tile_global_thumbnail>"
    """Before the tokens of the whole image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            told = self.tile.format(number=1) != self.tile.format(number=2)
        except (LookupError, ValueError):
            told = False
        if not told:
            raise SpecError(f"{self.kind}.tile: expected text with {{number}}, got {self.tile!r}")

    def tagged(self, image: ImageTokens) -> Iterator[Tagged]:
        """The views of an image in their order; of a film those of each frame."""
        start, grids = 0, iter(image.grids)
        of_frame = [render for render in image.plan.renders for _ in render.tiles]
        for _ in range(len(image.grids) // len(of_frame)):
            number = 0
            for render in of_frame:
                whole, length = len(render.tiles) == 1, next(grids).tokens
                number += not whole
                yield Tagged(self.whole if whole else self.tile.format(number=number), start, length, whole)
                start += length

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        pieces: list[Piece] = [Trusted(self.start)]
        for view in self.tagged(image):
            pieces += [Trusted(view.tag), Visual(view.start, view.length)]
        return (*pieces, Trusted(self.end))
