"""Tiles on a padded canvas, beside transformers' processor of Mllama and the transform of llama-models, whose tiles these are.

`llama_canvases.json` holds what llama-models 0.3.0 (`llama3/multimodal/image_transform.py`) makes of 400 drawn sizes, one a line:
height, width, pixels of a tile, tiles at most, rows and columns of the canvas, height and width of the picture. Sizes are those of
random.Random(0): a tile of 560, 448 or 224, tiles of 4, 4, 4, 1, 2, 6, 9 or 12, sides up to 100, 700, 3000 or 8000. Canvases come
from `find_supported_resolutions` and `get_best_fit`, pictures from `get_max_res_without_distortion` after the cap of
`resize_without_distortion`.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MllamaImageProcessor
from transformers.models.mllama.image_processing_mllama import (
    convert_aspect_ratios_to_ids,
    get_image_size_fit_to_canvas,
    get_optimal_tiled_canvas,
)

from tests.preprocess.policies.published import difference, geometries, image, processed, seen, shapes, views_of
from vlmkit.preprocess import Size, policies
from vlmkit.spec import SpecError

CanvasTiles = policies["canvas_tiles"]
PUBLISHED = MllamaImageProcessor(size={"height": 560, "width": 560})
GOLDEN = Path(__file__).with_name("llama_canvases.json")


@settings(max_examples=40, deadline=None)
@given(shapes, st.booleans(), st.integers(20, 120), st.integers(1, 6))
def test_pixels_are_those_of_mllama(shape, noise, size, tiles):
    picture = image(shape, noise)
    found = processed(PUBLISHED, picture, nested=True, size={"height": size, "width": size}, max_image_tiles=tiles)
    ours = seen(CanvasTiles(size=size, tiles=tiles), picture)
    theirs = views_of(found["pixel_values"][0, 0])
    assert difference(ours, theirs[: len(ours)]) <= 1
    assert all(not view.any() for view in theirs[len(ours) :])


@settings(max_examples=300, deadline=None)
@given(geometries, st.integers(1, 600), st.integers(1, 12))
def test_canvas_picture_and_id_are_those_of_mllama(shape, size, tiles):
    policy = CanvasTiles(size=size, tiles=tiles)
    (render,) = policy.plan(Size(*shape)).renders
    canvas = get_optimal_tiled_canvas(*shape, tiles, size)
    assert (render.canvas.height, render.canvas.width) == tuple(canvas)
    assert (render.resize.height, render.resize.width) == get_image_size_fit_to_canvas(*shape, *canvas, size)
    number = convert_aspect_ratios_to_ids([[render.tile_grid]], tiles)
    assert policy.canvases.index(render.tile_grid) == int(number) - 1


def test_canvas_and_picture_are_those_of_llama_models():
    rows = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert len(rows) == 400
    for height, width, size, tiles, down, across, *picture in rows:
        (render,) = CanvasTiles(size=size, tiles=tiles).plan(Size(height, width)).renders
        assert render.tile_grid == (down, across), (height, width)
        assert [render.resize.height, render.resize.width] == picture, (height, width)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(shapes.filter(lambda shape: max(shape) < 400 * min(shape)), st.booleans(), st.sampled_from([448, 560]), st.integers(1, 6))
def test_pixels_are_those_of_llama_models(shape, noise, size, tiles):
    """Of images so thin that a side would have no pixel llama-models makes nothing; here, as in transformers, that side has one."""
    transform = pytest.importorskip("llama_models.llama3.multimodal.image_transform").VariableSizeImageTransform(size)
    from PIL import Image

    picture = image(shape, noise)
    (render,) = CanvasTiles(size=size, tiles=tiles).plan(Size(*shape)).renders
    theirs, (rows, columns) = transform(Image.fromarray(picture), max_num_chunks=tiles, normalize_img=False)
    assert render.tile_grid == (rows, columns)
    ours = seen(CanvasTiles(size=size, tiles=tiles), picture)
    assert difference(ours, views_of(np.rint(theirs.numpy() * 255).astype(np.uint8))) <= 2  # Pillow's filter


def test_worked_numbers():
    (wide,) = CanvasTiles(size=560).plan(Size(400, 640)).renders
    assert (wide.resize, wide.canvas, wide.tile_grid) == (Size(400, 640), Size(560, 1120), (1, 2))
    (small,) = CanvasTiles(size=560).plan(Size(200, 300)).renders
    assert (small.resize, small.canvas, small.tile_grid) == (Size(373, 560), Size(560, 560), (1, 1))


def test_no_tile_is_refused():
    with pytest.raises(SpecError, match=r"canvas_tiles\.tiles: expected 1 or more, got 0"):
        CanvasTiles(size=560, tiles=0)
