"""Molmo's rows: tokens of crops that overlap, in the order in which upstream lays them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from tests.molmo_upstream import golden
from vlmkit.features import Grid
from vlmkit.layout.pieces import ImageTokens, Trusted, Visual
from vlmkit.layout.stitched_rows import StitchedRows
from vlmkit.layout.template import CHATML
from vlmkit.preprocess import Size
from vlmkit.preprocess.policies.multicrop import MultiCrop

LAYOUT = StitchedRows(template=CHATML, placeholder="<im_patch>", start="<im_start>", end="<im_end>", row_end="<im_col>")


def image(policy: MultiCrop, size: Size, side: int) -> ImageTokens:
    plan = policy.plan(size)
    return ImageTokens(plan, (Grid(1, side, side),) * len(plan.views))


def places(tokens: ImageTokens) -> np.ndarray:
    """Of each visual token as the connector returns it the place among the tokens of the image, -100 where it is left out."""
    found = np.full(tokens.count, -100, np.int32)
    place = 0
    for piece in LAYOUT.pieces(tokens):
        if isinstance(piece, Visual):
            found[piece.start : piece.start + piece.length] = np.arange(place, place + piece.length)
            place += piece.length
        else:
            assert isinstance(piece, Trusted)
            place += 1
    return found


def test_every_token_stands_where_upstream_puts_it_for_every_grid_of_crops() -> None:
    rows = golden("sizes")["order"]
    assert len(rows) > 100
    for height, width, *_, order, _ in rows:
        found = places(image(MultiCrop(), Size(height, width), 12))
        assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == order, (height, width)


def test_an_image_takes_as_many_tokens_as_upstream_gives_it() -> None:
    for height, width, _, _, visual, everything in golden("sizes")["sizes"]:
        tokens = image(MultiCrop(), Size(height, width), 12)
        assert LAYOUT.places(tokens) == visual
        lengths = [piece.length if isinstance(piece, Visual) else 1 for piece in LAYOUT.pieces(tokens)]
        assert sum(lengths) == everything


def test_the_example_of_the_docstring() -> None:
    tokens = image(MultiCrop(size=84, margin=28, crops=2), Size(60, 110), 3)
    assert len(tokens.grids) == 3
    shown = [
        piece.text if isinstance(piece, Trusted) else list(range(piece.start, piece.start + piece.length))
        for piece in LAYOUT.pieces(tokens)
    ]
    assert shown[8:] == [
        *("<im_start>", [9, 10], [19, 20], "<im_col>", [12, 13], [22, 23], "<im_col>", [15, 16], [25, 26], "<im_col>", "<im_end>")
    ]


def test_crops_whose_parts_are_no_whole_tokens_are_pictures_of_their_own() -> None:
    tokens = image(MultiCrop(size=84, margin=28, crops=2), Size(60, 110), 2)
    pieces = LAYOUT.pieces(tokens)
    assert sum(isinstance(piece, Trusted) and piece.text == "<im_start>" for piece in pieces) == 3
    assert LAYOUT.places(tokens) == 12
    kept_class = replace(tokens, grids=(Grid(1, 3, 3, prefix=1),) * 3)
    assert LAYOUT.places(kept_class) == 9 + 12 + 3
