import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.features import Features, Grid, GridError

few = st.integers(1, 50)


@given(few, few, few, st.integers(0, 5))
def test_tokens_are_frames_times_rows_times_columns_after_the_prefix(frames, rows, columns, prefix):
    assert Grid(frames, rows, columns, prefix).tokens == frames * rows * columns + prefix


@given(few, few, few, st.integers(1, 6))
def test_dividing_divides_the_tokens_by_the_square(frames, rows, columns, ratio):
    grid = Grid(frames, rows * ratio, columns * ratio)
    assert grid.divide(ratio) == Grid(frames, rows, columns)
    assert grid.divide(ratio).tokens * ratio**2 == grid.tokens


@pytest.mark.parametrize("grid", [Grid(1, 27, 28), Grid(1, 28, 27), Grid(2, 3, 3)])
def test_a_grid_that_does_not_divide_is_refused_with_the_numbers(grid):
    with pytest.raises(GridError, match=f"2x2 patches of a {grid.rows}x{grid.columns} grid"):
        grid.divide(2)


def test_a_class_token_has_no_neighbours():
    with pytest.raises(GridError, match="drop the class token"):
        Grid(1, 4, 4, prefix=1).divide(2)


@pytest.mark.parametrize(
    ("grid", "text"), [(Grid(1, 3, 4), "3x4"), (Grid(2, 3, 4), "2x3x4"), (Grid(1, 3, 4, 1), "3x4 + 1"), (Grid(2, 3, 4, 5), "2x3x4 + 5")]
)
def test_a_grid_reads_as_it_is_said(grid, text):
    assert str(grid) == text


def test_views_are_the_tokens_of_each_grid_in_order():
    tokens = torch.arange(18.0).reshape(9, 2)
    first, second = Features(tokens, (Grid(1, 2, 2), Grid(1, 2, 2, prefix=1))).views()
    assert torch.equal(first, tokens[:4])
    assert torch.equal(second, tokens[4:])
    assert Features(torch.empty(0, 2), ()).views() == ()


@pytest.mark.parametrize("count", [0, 5, 7])
def test_tokens_and_grids_have_to_agree(count):
    with pytest.raises(GridError, match=rf"{count} tokens do not stand on 1 grid\(s\) of 6 tokens together"):
        Features(torch.zeros(count, 2), (Grid(1, 2, 3),)).views()


def test_what_walks_tuples_finds_the_tokens_and_puts_features_together_again():
    features = Features(torch.ones(2, 3), (Grid(1, 1, 2),))
    doubled = torch.utils._pytree.tree_map_only(torch.Tensor, lambda tensor: tensor * 2, features)
    assert isinstance(doubled, Features)
    assert torch.equal(doubled.tokens, features.tokens * 2)
    assert doubled.grids == features.grids
