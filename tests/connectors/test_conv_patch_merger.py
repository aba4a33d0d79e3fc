"""UNIVA's merger beside plain torch, and the positions beside the formula written out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from vlmkit.connectors import connectors
from vlmkit.connectors.positions import sincos_2d
from vlmkit.features import Features, Grid, GridError
from vlmkit.spec import SpecError

ConvPatchMerger = connectors["conv_patch_merger"]


def test_univas_merger_has_39_335_680_parameters():
    with torch.device("meta"):
        module = ConvPatchMerger().build(1280, 5120)
    assert sum(parameter.numel() for parameter in module.parameters()) == 39_335_680


def written_out(row, column, dim):
    """One token's position: column then row, sines then cosines, frequency 10000^(-k / (dim / 4))."""
    quarter = dim // 4
    angles = [[place / 10000 ** (k / quarter) for k in range(quarter)] for place in (column, row)]
    return [f(angle) for half in angles for f in (math.sin, math.cos) for angle in half]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 114), st.integers(1, 8))
def test_positions_are_the_formula(rows, columns, quarter):
    """Measured 1.5e-6 here and 8e-6 at place 113 of width 5120 (float32 angles), allowed 2e-5."""
    expected = [written_out(row, column, 4 * quarter) for row in range(rows) for column in range(columns)]
    table = sincos_2d(rows, columns, 4 * quarter)
    assert table.dtype == torch.float32
    torch.testing.assert_close(table, torch.tensor(expected), rtol=0, atol=2e-5)


def test_positions_at_univas_width():
    table = sincos_2d(13, 18, 5120)
    for index in (0, 17, 18, 100, 233):
        expected = torch.tensor(written_out(index // 18, index % 18, 5120))
        torch.testing.assert_close(table[index], expected, rtol=0, atol=2e-6)


def test_the_width_comes_first_and_sines_before_cosines():
    table = sincos_2d(2, 2, 8)
    assert table[0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    right, below = table[1], table[2]
    torch.testing.assert_close(right[:4], torch.tensor([math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01)]))
    assert right[4:].tolist() == table[0, 4:].tolist()
    assert below[:4].tolist() == table[0, :4].tolist()
    torch.testing.assert_close(below[4:], right[:4])


@pytest.mark.parametrize("kernel", [2, 3])
def test_it_is_a_convolution_a_norm_an_mlp_and_positions(kernel):
    """Measured 4e-7, allowed 1e-5."""
    module = ConvPatchMerger(kernel=kernel).build(8, 16)
    grids = (Grid(1, 2 * kernel, 3 * kernel), Grid(2, kernel, 4 * kernel))
    features = Features(torch.randn(sum(grid.tokens for grid in grids), 8), grids)
    first, second = module.mlp[0], module.mlp[2]
    expected = []
    for view, grid in zip(features.views(), grids, strict=True):
        image = view.view(grid.frames, grid.rows, grid.columns, 8).permute(0, 3, 1, 2)
        pooled = functional.conv2d(image, module.conv.weight, module.conv.bias, stride=kernel)
        tokens = functional.layer_norm(pooled.permute(0, 2, 3, 1), (8,), module.norm.weight, module.norm.bias, eps=1e-5)
        tokens = functional.linear(functional.gelu(functional.linear(tokens, first.weight, first.bias)), second.weight, second.bias)
        rows, columns = tokens.shape[1:3]
        places = torch.tensor([written_out(row, column, 16) for row in range(rows) for column in range(columns)])
        expected.append((tokens + places.view(1, rows, columns, 16)).reshape(-1, 16))
    torch.testing.assert_close(module(features).tokens, torch.cat(expected), rtol=1e-5, atol=1e-5)


def test_positions_are_added_last_and_can_be_left_out():
    module = ConvPatchMerger().build(8, 16)
    plain = ConvPatchMerger(positions="none").build(8, 16)
    plain.load_state_dict(module.state_dict())
    features = Features(torch.randn(48, 8), (Grid(2, 4, 6),))
    difference = module(features).tokens - plain(features).tokens
    torch.testing.assert_close(difference, sincos_2d(2, 3, 16).repeat(2, 1), rtol=0, atol=1e-6)


def test_positions_are_computed_in_float32_and_then_cast():
    module = ConvPatchMerger().build(8, 16).to(torch.bfloat16)
    tokens = torch.zeros(114, 16, dtype=torch.bfloat16)
    assert torch.equal(module.positions((Grid(1, 1, 114),), tokens), sincos_2d(1, 114, 16).to(torch.bfloat16))


def test_a_width_that_has_no_room_for_positions_is_refused_at_build():
    with pytest.raises(SpecError, match="multiple of 4, but the language model is 18 wide"):
        ConvPatchMerger().build(8, 18)
    assert ConvPatchMerger().problems(8, 16) == []
    ConvPatchMerger(positions="none").build(8, 18)


def test_an_odd_grid_is_refused_with_both_numbers():
    with pytest.raises(GridError, match=r"^conv_patch_merger merges 2x2 patches, but the grid is 27x27$"):
        ConvPatchMerger().grid_out(Grid(1, 27, 27))


@pytest.mark.parametrize("fields", [dict(kernel=0), dict(norm_eps=-1e-5), dict(activation="tangent")])
def test_nonsense_is_refused(fields):
    with pytest.raises(SpecError, match="conv_patch_merger"):
        ConvPatchMerger(**fields)
