"""Tiles behind tags that say where they lie, the whole image behind one of its own.

Idefics3 (Laurencon et al. 2024, arXiv:2408.12637) and SmolVLM (Marafioti et al. 2025, arXiv:2504.05299). An image of one row of
two tiles and the whole, F the boundary <fake_token_around_image>:

    F <row_1_col_1> tokens F <row_1_col_2> tokens line-break
    line-break F <global-img> tokens F

Tags are one special token each where the tokenizer has them (SmolVLM 256M and 500M), else plain text (Idefics3, SmolVLM 2.2B).
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.layout import layouts
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import ImageTokens, Piece, Trusted, Visual
from vlmkit.spec import SpecError


@layouts.register("tile_tags")
@dataclass(frozen=True, kw_only=True)
class TileTags(TokenLayout):
    """A render of the plan that was cut is tiles, one that was not is the whole image."""

    boundary: str = "<fake_token_around_image>"
    """Special token before every view and after the last."""
    tile: str = "<row_{row}_col_{column}>"
    """Before a tile's tokens; rows and columns count from 1."""
    whole: str = "<global-img>"
    """Before the tokens of the whole image."""
    row_end: str = "\n"
    """After each row of tiles, and before a whole image that follows tiles."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self.tag(0, 0)
        except (LookupError, ValueError):
            raise SpecError(f"tile_tags.tile: expected text with {{row}} and {{column}}, got {self.tile!r}") from None

    def tag(self, row: int, column: int) -> str:
        """The tag of a tile; row and column count from 0."""
        return self.tile.format(row=row + 1, column=column + 1)

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        starts = [sum(grid.tokens for grid in image.grids[:number]) for number in range(len(image.grids))]
        views = iter([Visual(start, grid.tokens) for start, grid in zip(starts, image.grids, strict=True)])
        pieces: list[Piece] = []
        for render in image.plan.renders:
            if len(render.tiles) == 1:
                pieces += [Trusted((self.row_end if pieces else "") + self.boundary + self.whole), next(views)]
                continue
            rows, columns = render.tile_grid
            for row in range(rows):
                for column in range(columns):
                    pieces += [Trusted(self.boundary + self.tag(row, column)), next(views)]
                pieces.append(Trusted(self.row_end))
        return (*pieces, Trusted(self.boundary))

    def required_specials(self) -> tuple[str, ...]:
        return (*super().required_specials(), self.boundary)
