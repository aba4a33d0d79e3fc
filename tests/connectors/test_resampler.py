"""Queries and features that know where they stand, beside torch's MultiheadAttention and the equations of Qwen-VL's adapter."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.tiny import draw
from vlmkit.connectors.resampler import Resampler
from vlmkit.features import Features, Grid
from vlmkit.spec import SpecError

SMALL = Resampler(side=2, heads=4)


def positions(side, dim):
    """Sines and cosines of a column in the first half of the channels, of a row in the second, in numpy."""
    rates = 10000.0 ** -(np.arange(dim // 4) / (dim // 4))
    column, row = np.meshgrid(np.arange(side), np.arange(side))
    halves = [np.outer(place.reshape(-1), rates) for place in (column, row)]
    return torch.tensor(np.concatenate([made(half) for half in halves for made in (np.sin, np.cos)], axis=1)).float()


def by_equations(module, view, rows, columns):
    """One view (n, D_v) on a grid, with torch's attention."""
    weights = module.state_dict()
    side, dim = module.spec.side, weights["query"].shape[1]
    attention = nn.MultiheadAttention(dim, module.spec.heads)
    attention.load_state_dict({name.removeprefix("attn."): value for name, value in weights.items() if name.startswith("attn.")})

    def norm(name, tokens):
        return functional.layer_norm(tokens, (dim,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    table = positions(side, dim)
    image = table.T.reshape(1, dim, side, side)
    at_keys = functional.interpolate(image, size=(rows, columns), mode="bicubic", align_corners=False)[0].flatten(1).T
    values = norm("ln_kv", view @ weights["kv_proj.weight"].T)
    attended, _ = attention((norm("ln_q", weights["query"]) + table)[:, None], (values + at_keys)[:, None], values[:, None])
    return norm("ln_post", attended[:, 0]) @ weights["proj.weight"].T


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (4, 4), (3, 5), (1, 1)])
def test_it_is_the_published_equations_with_torchs_attention(rows, columns):
    """Measured 2e-6 in tokens of size 8. Where the view has the queries' own grid, no table is resampled."""
    module = SMALL.build(12, 16)
    draw(module, scale=0.5)
    view = torch.randn(rows * columns, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = module(Features(view, (Grid(1, rows, columns),)))
        expected = by_equations(module, view, rows, columns)
    assert found.grids == (Grid(1, 2, 2),)
    torch.testing.assert_close(found.tokens, expected, atol=1e-5, rtol=0)


def test_where_a_feature_stands_matters():
    module = SMALL.build(12, 16)
    draw(module, scale=0.5)
    view = torch.randn(6, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one, other = (module(Features(view, (grid,))).tokens for grid in (Grid(1, 2, 3), Grid(1, 3, 2)))
    assert (one - other).abs().max() > 0.05


def test_qwen_vls_has_92_million_parameters():
    with torch.device("meta"):
        module = Resampler().build(1664, 4096)
    assert sum(parameter.numel() for parameter in module.parameters()) == 91_791_360


def test_each_layer_is_called_once_whatever_the_views():
    module = SMALL.build(12, 16)
    calls = []
    for layer in module.modules():
        layer.register_forward_hook(lambda layer, inputs, output: calls.append(layer))
    grids = (Grid(1, 4, 3), Grid(1, 2, 1), Grid(3, 1, 2, prefix=1))
    module(Features(torch.randn(sum(grid.tokens for grid in grids), 12), grids))
    assert len(calls) == len(set(calls)) == len(list(module.modules()))


def test_widths_that_it_cannot_serve_are_problems():
    assert Resampler(heads=4).problems(12, 18) == [
        "connector 'resampler' has 4 heads, into which the language model's 18 channels do not divide",
        "connector 'resampler' has sines and cosines of rows and columns, but 18 channels are no multiple of 4",
    ]
    with pytest.raises(SpecError, match="4 heads, into which the language model's 18 channels"):
        SMALL.build(12, 18)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"side": 0}, "side: expected 1 or more, got 0"),
        ({"heads": 0}, "heads: expected 1 or more, got 0"),
        ({"norm_eps": 0.0}, r"norm_eps: expected more than 0, got 0\.0"),
    ],
)
def test_numbers_that_make_no_connector_are_refused(fields, problem):
    with pytest.raises(SpecError, match=rf"^resampler\.{problem}"):
        Resampler(**fields)
