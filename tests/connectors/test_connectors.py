"""Laws of every registered connector."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import part
from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.features import Features, Grid, GridError

NORMS = st.sampled_from(["none", "layer_norm", "rms_norm"])
ACTIVATIONS = st.sampled_from(["gelu", "gelu_tanh", "silu", "relu"])
EPS = st.floats(1e-8, 1e-3)
FIELDS = {
    "attention_pool": st.fixed_dictionaries(
        {"heads": st.sampled_from([1, 2, 4])},
        optional={
            "ratio": st.integers(1, 3),
            "width": st.none() | st.sampled_from([4, 8, 12]),
            "hidden": st.none() | st.integers(1, 20),
            "activation": ACTIVATIONS,
        },
    ),
    "bilinear_mlp": st.fixed_dictionaries(
        {},
        optional={
            "ratio": st.integers(1, 3),
            "ratio_clips": st.none() | st.integers(1, 3),
            "depth": st.integers(1, 3),
            "activation": ACTIVATIONS,
        },
    ),
    "conv_patch_merger": st.fixed_dictionaries(
        {},
        optional={
            "kernel": st.integers(1, 3),
            "norm_eps": EPS,
            "activation": ACTIVATIONS,
            "positions": st.sampled_from(["sincos2d", "none"]),
        },
    ),
    "flamingo_resampler": st.fixed_dictionaries(
        {
            "latents": st.integers(1, 5),
            "depth": st.integers(1, 2),
            "heads": st.sampled_from([2, 4]),
            "head_dim": st.sampled_from([4, 8]),
        },
        optional={"qk_norm": st.booleans()},
    ),
    "joined": st.fixed_dictionaries({}, optional={"how": st.sampled_from(["channels", "sequence"])}),
    "linear": st.fixed_dictionaries({}, optional={"bias": st.booleans()}),
    "merged_mlp": st.fixed_dictionaries(
        {},
        optional={
            "ratio": st.integers(1, 3),
            "order": st.sampled_from(["dh dw c", "c dh dw"]),
            "norm_eps": EPS,
            "activation": ACTIVATIONS,
            "bias": st.booleans(),
        },
    ),
    "mlp": st.fixed_dictionaries(
        {},
        optional={
            "depth": st.integers(2, 4),
            "hidden": st.none() | st.integers(1, 20),
            "activation": ACTIVATIONS,
            "bias": st.booleans(),
            "norm_in": NORMS,
            "norm_between": NORMS,
            "norm_out": NORMS,
            "norm_eps": EPS,
        },
    ),
    "perceiver": st.fixed_dictionaries(
        {
            "latents": st.integers(1, 5),
            "depth": st.integers(1, 2),
            "heads": st.sampled_from([2, 4]),
            "kv_heads": st.integers(1, 2),
            "head_dim": st.sampled_from([4, 8]),
        },
        optional={"hidden": st.none() | st.integers(1, 20), "activation": ACTIVATIONS, "norm_eps": EPS},
    ),
    "patch_merger": st.fixed_dictionaries(
        {},
        optional={
            "ratio": st.integers(1, 4),
            "order": st.sampled_from(["dh dw c", "c dh dw"]),
            "norm_eps": EPS,
            "activation": ACTIVATIONS,
        },
    ),
    "pixel_shuffle": st.fixed_dictionaries(
        {}, optional={"ratio": st.integers(1, 4), "order": st.sampled_from(["dh dw c", "c dh dw"]), "bias": st.booleans()}
    )
    | st.fixed_dictionaries({"ratio": st.integers(1, 4), "inner": st.sampled_from([connectors["mlp"](norm_in="layer_norm", bias=False)])}),
    "query_attention": st.fixed_dictionaries(
        {"queries": st.sampled_from([((1, 3),), ((2, 2), (3, 5)), ((1, 4), (2, 3), (4, 6))]), "heads": st.sampled_from([1, 2, 4])},
        optional={"activation": ACTIVATIONS, "norm_eps": EPS},
    ),
    "resampler": st.fixed_dictionaries({"side": st.integers(1, 3), "heads": st.sampled_from([1, 2, 4])}, optional={"norm_eps": EPS}),
    "sequence_fold": st.fixed_dictionaries(
        {}, optional={"fold": st.integers(1, 4), "hidden": st.none() | st.integers(1, 20), "activation": ACTIVATIONS}
    ),
}
"""Drawn fields of every connector; a new connector adds its line here."""
TOKEN_WISE = ("joined", "linear", "mlp")
"""They take every grid and pass a kept class token."""
RESAMPLERS = ("flamingo_resampler", "perceiver", "query_attention", "resampler")
"""They take every grid, a kept class token too, and give as many tokens as they have queries, in one row."""
SQUARE = ("resampler",)
"""Of these, those whose queries stand on a grid of their own."""

FOLDING = ("sequence_fold",)
"""They merge along rows alone."""

DIM_IN, DIM_OUT = 8, 16


def merge_of(connector: Connector, grid: Grid) -> int:
    return connector.merge if grid.frames == 1 else connector.merge_clips


@st.composite
def drawn_connectors(draw: st.DrawFn) -> Connector:
    kind = draw(st.sampled_from(sorted(FIELDS)))
    return connectors[kind](**draw(FIELDS[kind]))


@st.composite
def taken_grids(draw: st.DrawFn, connector: Connector, most: int = 4) -> tuple[Grid, ...]:
    """Grids that the connector takes, some of them equal, some with several frames, a class token where it passes."""
    prefix = draw(st.integers(0, 1)) if connector.kind in TOKEN_WISE + RESAMPLERS else 0
    few = st.integers(1, 4)

    def taken(frames: int, rows: int, columns: int) -> Grid:
        merge = merge_of(connector, Grid(frames, 1, 1))
        return Grid(frames, rows * merge, columns * merge, prefix)

    grid = st.builds(taken, st.integers(1, 3), few, few)
    grids = draw(st.lists(grid, max_size=most))
    return tuple(draw(st.permutations(grids + grids[:1])))


def random_features(grids: tuple[Grid, ...]) -> Features:
    generator = torch.Generator().manual_seed(0)
    return Features(torch.randn(sum(grid.tokens for grid in grids), DIM_IN, generator=generator), grids)


def test_every_connector_is_walked():
    assert sorted(FIELDS) == connectors.names()
    assert len(connectors) >= 6


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_grid_out_is_what_the_module_returns(data):
    connector = data.draw(drawn_connectors())
    features = random_features(data.draw(taken_grids(connector)))
    out = connector.build(DIM_IN, DIM_OUT)(features)
    assert out.grids == tuple(connector.grid_out(grid) for grid in features.grids)
    assert out.tokens.shape == (sum(grid.tokens for grid in out.grids), DIM_OUT)
    for grid, merged in zip(features.grids, out.grids, strict=True):
        if connector.kind in RESAMPLERS:
            rows = merged.columns if connector.kind in SQUARE else 1
            assert (merged.frames, merged.rows, merged.prefix) == (grid.frames, rows, 0)
            continue
        merge = merge_of(connector, grid)
        rows = merged.rows if connector.kind in FOLDING else merged.rows * merge
        assert (rows, merged.columns * merge) == (grid.rows, grid.columns)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_views_do_not_depend_on_their_neighbours(data):
    connector = data.draw(drawn_connectors())
    features = random_features(data.draw(taken_grids(connector)))
    module = connector.build(DIM_IN, DIM_OUT)
    together = module(features).views()
    for view, grid, expected in zip(features.views(), features.grids, together, strict=True):
        alone = module(Features(view, (grid,))).tokens
        torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_frames_are_merged_one_by_one(data):
    connector = data.draw(drawn_connectors().filter(lambda connector: connector.merge == connector.merge_clips))
    rows, columns = (connector.merge * data.draw(st.integers(1, 4)) for _ in range(2))
    video = random_features((Grid(3, rows, columns),))
    images = Features(video.tokens, (Grid(1, rows, columns),) * 3)
    module = connector.build(DIM_IN, DIM_OUT)
    torch.testing.assert_close(module(video).tokens, module(images).tokens, rtol=1e-5, atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_bad_grid_is_refused_by_grid_out_and_by_the_module_alike(data):
    connector = data.draw(drawn_connectors())
    side = st.integers(1, 9)
    grid = data.draw(st.builds(Grid, st.integers(1, 2), side, side, st.integers(0, 1)))
    module = connector.build(DIM_IN, DIM_OUT)
    merge = merge_of(connector, grid)
    rows_fit = connector.kind in FOLDING or grid.rows % merge == 0
    if rows_fit and grid.columns % merge == 0 and not (grid.prefix and connector.kind not in TOKEN_WISE + RESAMPLERS):
        module(random_features((grid,)))
        return
    for refused in (lambda: connector.grid_out(grid), lambda: module(random_features((grid,)))):
        with pytest.raises(GridError, match=f"{connector.kind} merges .* but the grid is {re.escape(str(grid))}"):
            refused()


@settings(max_examples=200, deadline=None)
@given(drawn_connectors())
def test_json_reads_back_exactly(connector):
    assert Connector.from_json(connector.to_json()) == connector
    assert Connector.from_dict(connector.to_dict()) == connector
    assert type(connector).from_json(connector.to_json()).to_json() == connector.to_json()


@pytest.mark.parametrize("kind", connectors.names())
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_features_keep_their_dtype(kind, dtype):
    features = random_features((Grid(1, 4, 6), Grid(1, 2, 2)))
    module = part(connectors, kind).build(DIM_IN, DIM_OUT).to(dtype)
    assert module(Features(features.tokens.to(dtype), features.grids)).tokens.dtype == dtype


@pytest.mark.parametrize("kind", connectors.names())
def test_modules_are_built_and_run_on_the_meta_device(kind):
    with torch.device("meta"):
        module = part(connectors, kind).build(DIM_IN, DIM_OUT)
        out = module(Features(torch.empty(24, DIM_IN), (Grid(1, 4, 6),)))
    assert out.tokens.is_meta
    assert all(parameter.is_meta for parameter in module.parameters())


@pytest.mark.parametrize("kind", connectors.names())
def test_a_meta_default_device_does_not_reach_a_module_that_exists(kind):
    module = part(connectors, kind).build(DIM_IN, DIM_OUT)
    features = random_features((Grid(1, 4, 6),))
    expected = module(features).tokens
    with torch.device("meta"):
        torch.testing.assert_close(module(features).tokens, expected)


@pytest.mark.parametrize("kind", connectors.names())
def test_modules_hold_parameters_and_no_buffers(kind):
    """A buffer that is computed at build time is lost where a model is made on the meta device and then filled."""
    module = part(connectors, kind).build(DIM_IN, DIM_OUT)
    assert list(module.buffers()) == []
    assert set(module.state_dict()) == {name for name, _ in module.named_parameters()}


@pytest.mark.parametrize("kind", connectors.names())
def test_every_parameter_and_the_features_get_a_gradient(kind):
    module = part(connectors, kind).build(DIM_IN, DIM_OUT)
    features = random_features((Grid(1, 4, 6), Grid(2, 2, 2)))
    features.tokens.requires_grad_()
    module(features).tokens.square().sum().backward()
    for tensor in (features.tokens, *module.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize("kind", connectors.names())
def test_a_batch_without_images_is_served(kind):
    out = part(connectors, kind).build(DIM_IN, DIM_OUT)(Features(torch.empty(0, DIM_IN), ()))
    assert out.tokens.shape == (0, DIM_OUT)
    assert out.grids == ()
