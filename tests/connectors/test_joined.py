"""Several towers' features joined before one connector."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.connectors import connectors
from vlmkit.connectors.joined import Joined
from vlmkit.connectors.linear import Linear
from vlmkit.connectors.mlp import Mlp
from vlmkit.connectors.pixel_shuffle import PixelShuffle
from vlmkit.features import Features, Grid, GridError
from vlmkit.spec import SpecError

few = st.integers(1, 4)
grids = st.lists(st.builds(lambda r, c: Grid(1, 2 * r, 2 * c), few, few), min_size=1, max_size=4).map(tuple)


def features(of: tuple[Grid, ...], dim: int, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return Features(torch.randn(sum(grid.tokens for grid in of), dim, generator=generator), of)


@given(grids, st.lists(st.integers(1, 9), min_size=1, max_size=3), st.sampled_from([Mlp(), Linear(), PixelShuffle(ratio=2)]))
def test_channels_of_a_patch_stand_side_by_side_in_the_order_of_the_towers(of, dims, inner):
    spec = Joined(inner=inner)
    module = spec.build(tuple(dims), 16)
    towers = [features(of, dim, number) for number, dim in enumerate(dims)]
    out = module(*towers)
    assert out.grids == tuple(spec.grid_out(*[grid] * len(dims)) for grid in of)
    alone = module.inner(Features(torch.cat([tower.tokens for tower in towers], dim=1), of))
    assert torch.equal(out.tokens, alone.tokens)


@given(st.data(), st.integers(1, 3), st.sampled_from([Mlp(), Linear()]))
def test_a_sequence_has_the_towers_tokens_of_each_view_one_behind_the_other(data, count, inner):
    views = data.draw(st.integers(1, 3))
    of = [tuple(data.draw(st.builds(Grid, st.just(1), few, few)) for _ in range(views)) for _ in range(count)]
    spec = Joined(inner=inner, how="sequence")
    module = spec.build((8,) * count, 16)
    towers = [features(grids, 8, number) for number, grids in enumerate(of)]
    out = module(*towers)
    assert out.grids == tuple(spec.grid_out(*view) for view in zip(*of, strict=True))
    wanted = [tower.views()[view] for view in range(views) for tower in towers]
    assert torch.allclose(out.tokens, module.inner(Features(torch.cat(wanted), out.grids)).tokens)


def test_what_cannot_be_joined_is_said_with_both_numbers():
    with pytest.raises(GridError, match="the towers' grids of a view are 27x27 and 16x16"):
        Joined().grid_out(Grid(1, 27, 27), Grid(1, 16, 16))
    with pytest.raises(SpecError, match="the towers give 1024 and 1152 channels"):
        Joined(how="sequence").build((1024, 1152), 4096)
    with pytest.raises(SpecError, match="'joined' takes several towers itself"):
        Joined(inner=Joined())


def test_it_comes_back_from_json():
    spec = Joined(inner=PixelShuffle(ratio=2), how="channels")
    assert connectors["joined"].from_json(spec.to_json()) == spec
