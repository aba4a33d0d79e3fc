"""Aspect-matched tiles beside transformers' GotOcr2ImageProcessor, and numbers of InternVL's own `dynamic_preprocess`."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GotOcr2ImageProcessor
from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from tests.preprocess.policies.published import difference, geometries, image, processed, seen, shapes, views_of
from vlmkit.preprocess import Size, policies
from vlmkit.spec import SpecError

Tiles = policies["tiles"]


def canvas(shape, size, least, most):
    columns, rows = get_optimal_tiled_canvas(shape, (size, size), least, most)
    return rows, columns


@settings(max_examples=2000, deadline=None)
@given(geometries, st.integers(1, 800), st.integers(1, 12), st.integers(0, 28))
def test_the_grid_is_that_of_transformers(shape, size, least, more):
    most = least + more
    assert Tiles(size=size, least=least, most=most).grid_for(Size(*shape)) == canvas(shape, size, least, most)


@pytest.mark.parametrize("most", [4, 6, 12, 24])
def test_shapes_right_between_two_grids_are_decided_as_transformers_does(most):
    policy = Tiles(size=448, most=most)
    shapes = sorted({Fraction(columns, rows) for rows, columns in policy.grids})
    for one, other in pairwise(shapes):
        for middle in (one, (one + other) / 2):
            for times in (1, 7, 50, 400, 2000):
                shape = middle.denominator * times, middle.numerator * times
                assert policy.grid_for(Size(*shape)) == canvas(shape, 448, 1, most)


@settings(max_examples=25, deadline=None)
@given(shapes, st.booleans(), st.sampled_from([1, 4, 6]))
def test_pixels_are_those_of_transformers(shape, noise, most):
    """GotOcr2ImageProcessor cuts a resized picture as upstream does, and resizes each tile to its own size once more."""
    picture = image(shape, noise)
    published = GotOcr2ImageProcessor(size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=most)
    theirs = views_of(np.asarray(processed(published, picture)["pixel_values"]))
    assert difference(seen(Tiles(size=56, most=most), picture), theirs) == 0


def test_numbers_of_the_published_function():
    """Rows and columns for (height, width), as `dynamic_preprocess` of the card of nvidia/NVLM-D-72B gave them with tiles of 448: run
    outside of this repository, 2,000 drawn sizes with it, none of which differed."""
    published = {
        (1, (480, 640)): (1, 1),
        (6, (480, 640)): (2, 3),
        (6, (640, 480)): (3, 2),
        (6, (448, 448)): (1, 1),
        (6, (896, 896)): (2, 2),
        (6, (60, 500)): (1, 6),
        (6, (3000, 2000)): (3, 2),
        (6, (1080, 1920)): (1, 2),
        (12, (1080, 1920)): (2, 4),
        (12, (480, 640)): (3, 4),
        (12, (300, 900)): (1, 3),
        (12, (1000, 3000)): (2, 6),
        (12, (1, 100_000)): (1, 12),
    }
    assert {(most, size): Tiles(size=448, most=most).grid_for(Size(*size)) for most, size in published} == published


def test_worked_numbers():
    tiles, whole = Tiles(size=448, most=6).plan(Size(480, 640)).renders
    assert (tiles.resize, tiles.tile_grid, whole.resize) == (Size(896, 1344), (2, 3), Size(448, 448))
    assert [(tile.top, tile.left) for tile in tiles.tiles[:4]] == [(0, 0), (0, 448), (0, 896), (448, 0)]
    assert len(Tiles(size=448, most=6).plan(Size(400, 400)).views) == 1, "the only tile is the whole image"
    assert len(Tiles(size=448, most=6, thumbnail=False).plan(Size(480, 640)).views) == 6


def test_the_grids_of_six_tiles_are_the_fourteen_of_the_paper():
    assert len(Tiles(size=448, most=6).grids) == 14
    assert Tiles(size=448, least=3, most=4).grids == ((3, 1), (1, 3), (4, 1), (2, 2), (1, 4))


@pytest.mark.parametrize("fields", [{"least": 0}, {"least": 4, "most": 3}, {"most": 0}])
def test_no_tiles_are_refused(fields):
    with pytest.raises(SpecError, match=r"tiles\.(least|most): expected \d"):
        Tiles(size=448, **fields)
