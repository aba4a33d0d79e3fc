"""Joined tiles without padding, beside the packing of features in transformers' LlavaNextModel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

import vlmkit
from vlmkit.features import Grid
from vlmkit.layout.pieces import ImageTokens, Learned, Visual
from vlmkit.layout.template import CHATML
from vlmkit.preprocess.geometry import Box, ImagePlan, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.anyres import LLAVA_GRIDS

LAYOUT = vlmkit.layouts["unpadded_rows"](template=CHATML, placeholder="<|image|>")
NEWLINE = -1


def laid_out(image: ImageTokens) -> list[int]:
    """Visual tokens by their numbers, NEWLINE where the learned embedding stands."""
    found: list[int] = []
    for piece in LAYOUT.image_pieces(image):
        assert isinstance(piece, Visual | Learned)
        found += [NEWLINE] if isinstance(piece, Learned) else range(piece.start, piece.start + piece.length)
    return found


def tokens(plan: ImagePlan, patch: int = 14) -> ImageTokens:
    return ImageTokens(plan, plan.grids(patch))


def published(size: Size, tiles: ImageTokens, side: int) -> list[int]:
    """transformers' own packing of features that are their numbers."""
    points = [[rows * side, columns * side] for rows, columns in LLAVA_GRIDS]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(image_size=side, patch_size=14), text_config=LlamaConfig(), image_grid_pinpoints=points
    )
    model = LlavaNextModel.__new__(LlavaNextModel)
    torch.nn.Module.__init__(model)
    model.config = config
    numbers = torch.arange(tiles.count, dtype=torch.float32).view(len(tiles.grids), -1, 1)
    (packed,), _ = model.pack_image_features(
        [numbers], torch.tensor([[size.height, size.width]]), "default", torch.tensor([float(NEWLINE)])
    )
    return packed.flatten().int().tolist()


SIDES = st.integers(1, 700) | st.integers(1, 5000)


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, st.integers(1, 6))
def test_tokens_stand_where_llava_next_packs_them(height: int, width: int, patches: int) -> None:
    size = Size(height, width)
    image = tokens(policies["anyres"](size=14 * patches).plan(size))
    assert laid_out(image) == published(size, image, 14 * patches)


@pytest.mark.parametrize(("size", "count"), [(Size(480, 640), 576 + 36 * 49), (Size(336, 672), 576 + 24 * 49), (Size(1, 5000), 576)])
def test_places_of_the_published_sizes(size: Size, count: int) -> None:
    model = vlmkit.architecture("llava-1.6-vicuna-7b")
    assert model.tokens(size) == count
    assert model.image_tokens(model.plan(size)).count == 576 * (1 + len(model.plan(size).renders[1].tiles))


def test_the_picture_of_the_docstring() -> None:
    image = tokens(policies["anyres"](size=28, grids=((2, 2),)).plan(Size(28, 56)))
    assert laid_out(image) == [0, 1, 2, 3, 6, 7, 10, 11, NEWLINE, 12, 13, 16, 17, NEWLINE]


def plan_of(*renders: Render) -> ImagePlan:
    return ImagePlan(Size(28, 56), renders)


def test_a_single_picture_has_rows_and_keeps_them_all() -> None:
    padded = policies["letterbox"](size=28).plan(Size(14, 56))
    assert laid_out(tokens(padded)) == [0, 1, NEWLINE, 2, 3, NEWLINE]


def test_a_picture_in_the_corner_of_its_canvas_keeps_all_its_rows() -> None:
    whole, canvas = Render.whole(Size(14, 14)), Size(28, 28)
    tiles = tuple(Box(top, left, 14, 14) for top in (0, 14) for left in (0, 14))
    corner = plan_of(whole, Render(resize=Size(7, 28), canvas=canvas, tiles=tiles))
    assert laid_out(tokens(corner)) == [0, 1, 2, NEWLINE, 3, 4, NEWLINE]


def test_tiles_that_do_not_lie_side_by_side_are_pictures_of_their_own() -> None:
    canvas = Size(28, 28)
    over = Render(resize=canvas, canvas=canvas, tiles=(Box(0, 0, 28, 28), Box(0, 0, 14, 14)))
    assert laid_out(tokens(plan_of(over))) == [0, 1, NEWLINE, 2, 3, NEWLINE, 4, NEWLINE]


def test_class_tokens_stand_before_the_rows() -> None:
    plan = policies["anyres"](size=14, grids=((1, 2),)).plan(Size(10, 20))
    image = ImageTokens(plan, (Grid(1, 1, 1, prefix=1),) * 3)
    assert laid_out(image) == [0, 1, 2, 4, 3, 5, NEWLINE]
