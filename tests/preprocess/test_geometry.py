import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.features import Grid, GridError
from vlmkit.preprocess import Box, ImagePlan, ImageSizeError, Render, Size

sides = st.integers(1, 5000)


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (-3, 5), (1.0, 1), ("3", 4), (True, 4), (None, 4)])
def test_a_size_is_two_whole_numbers_from_1_up(size):
    with pytest.raises(ImageSizeError, match="whole number of pixels from 1 up, got"):
        Size(*size)


@given(sides, sides)
def test_the_aspect_ratio_is_the_longer_side_over_the_shorter(height, width):
    size = Size(height, width)
    assert size.aspect_ratio == Size(width, height).aspect_ratio >= 1
    assert size.pixels == height * width


def test_height_comes_first():
    assert Size(480, 640) == Size(height=480, width=640)
    assert str(Size(480, 640)) == "480x640"


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 32))
def test_the_grid_counts_whole_patches(rows, columns, patch):
    assert Size(rows * patch, columns * patch).grid(patch) == Grid(1, rows, columns)


def test_a_part_of_a_patch_is_refused_with_the_numbers():
    with pytest.raises(GridError, match="378x392 pixels are not a whole number of 16x16 patches"):
        Size(378, 392).grid(16)


def test_views_are_numbered_render_by_render_and_tile_by_tile():
    tiled = Render(resize=Size(28, 56), canvas=Size(28, 56), tiles=(Box(0, 0, 28, 28), Box(0, 28, 28, 28)))
    plan = ImagePlan(source=Size(300, 600), renders=(Render.whole(Size(14, 42)), tiled))
    assert plan.views == (Size(14, 42), Size(28, 28), Size(28, 28))
    assert plan.grids(14) == (Grid(1, 1, 3), Grid(1, 2, 2), Grid(1, 2, 2))


def test_tiles_stand_in_rows_and_columns():
    boxes = tuple(Box(top, left, 14, 14) for top in (0, 20) for left in (0, 20, 40))
    assert Render(resize=Size(40, 60), canvas=Size(40, 60), tiles=boxes).tile_grid == (2, 3)
    assert Render.whole(Size(14, 14)).tile_grid == (1, 1)


def test_a_whole_render_is_one_view_without_padding():
    render = Render.whole(Size(30, 50))
    assert (render.resize, render.canvas, render.tiles, render.top, render.left) == (Size(30, 50), Size(30, 50), (Box(0, 0, 30, 50),), 0, 0)
