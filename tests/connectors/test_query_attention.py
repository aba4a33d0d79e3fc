"""Learned queries beside transformers' AriaProjector."""

import pytest
import torch
from transformers import AriaConfig
from transformers.models.aria.modeling_aria import AriaProjector

import vlmkit
from tests.tiny import draw
from vlmkit.connectors.query_attention import QueryAttention
from vlmkit.features import Features, Grid
from vlmkit.spec import SpecError

TINY = QueryAttention(queries=((2, 3), (4, 5)), heads=4)


def published():
    config = AriaConfig(
        vision_config={"model_type": "idefics3_vision", "hidden_size": 16, "num_attention_heads": 4},
        text_config={"hidden_size": 24, "num_attention_heads": 4},
        projector_patch_to_query_dict={4: 3, 16: 5},
    )
    theirs = AriaProjector(config).eval()
    draw(theirs)
    return theirs


def test_features_and_gradients_equal_transformers():
    """Measured 2e-7 in tokens of size 0.5, 4e-6 in gradients of size 16."""
    theirs, ours = published(), TINY.build(16, 24)
    ours.load_state_dict(theirs.state_dict())
    grids = (Grid(1, 4, 3), Grid(1, 2, 1), Grid(1, 1, 4), Grid(1, 2, 2))
    views = [torch.randn(grid.rows, grid.columns, 16, generator=torch.Generator().manual_seed(number)) for number, grid in enumerate(grids)]
    expected = []
    for view in views:
        rows, columns = view.shape[:2]
        side = 2 if max(rows, columns) <= 2 else 4
        square, masked = torch.randn(side, side, 16), torch.ones(side, side, dtype=torch.bool)
        square[:rows, :columns], masked[:rows, :columns] = view, False
        expected.append(theirs(square.view(1, -1, 16), attn_mask=masked.view(1, -1))[0])
    found = ours(Features(torch.cat([view.view(-1, 16) for view in views]), grids))
    assert found.grids == (Grid(1, 1, 5), Grid(1, 1, 3), Grid(1, 1, 5), Grid(1, 1, 3))
    torch.testing.assert_close(found.tokens, torch.cat(expected), atol=1e-5, rtol=0)
    torch.cat(expected).square().sum().backward()
    found.tokens.square().sum().backward()
    for (name, one), (_, other) in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, atol=1e-4, rtol=1e-5, msg=name)


def test_the_number_of_queries_follows_from_the_longer_side():
    aria = vlmkit.architecture("aria-25b")
    assert aria.tokens(vlmkit.Size(480, 640)) == aria.tokens(vlmkit.Size(5, 2000)) == 256
    assert aria.replace(policy=aria.policy.replace(longest=490)).tokens(vlmkit.Size(480, 640)) == 128
    assert QueryAttention().grid_out(Grid(1, 3, 35)) == Grid(1, 1, 128)
    assert QueryAttention().grid_out(Grid(2, 36, 3)) == Grid(2, 1, 256)
    assert QueryAttention().grid_out(Grid(1, 500, 3)) == Grid(1, 1, 256)


def test_fewer_queries_are_the_first_of_more():
    module = TINY.build(16, 24)
    draw(module)
    tokens = torch.randn(4, 16)
    few, many = (module(Features(tokens, (grid,))).tokens for grid in (Grid(1, 2, 2), Grid(1, 1, 4)))
    torch.testing.assert_close(many[:3], few, atol=1e-6, rtol=0)


def test_each_layer_is_called_once_whatever_the_views():
    module = TINY.build(16, 24)
    calls = []
    for layer in module.modules():
        layer.register_forward_hook(lambda layer, inputs, output: calls.append(layer))
    grids = (Grid(1, 4, 3), Grid(1, 2, 1), Grid(3, 1, 2, prefix=1))
    module(Features(torch.randn(sum(grid.tokens for grid in grids), 16), grids))
    assert len(calls) == len(set(calls)) == len(list(module.modules()))


def test_heads_that_do_not_divide_the_width_are_a_problem():
    assert TINY.problems(18, 24) == ["connector 'query_attention' has 4 heads, into which the 18 channels of the encoder do not divide"]
    with pytest.raises(SpecError, match="4 heads, into which the 18 channels"):
        TINY.build(18, 24)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"queries": ()}, "queries: expected pairs of 1 or more, by rising numbers of patches"),
        ({"queries": ((4, 0),)}, "queries: expected pairs of 1 or more"),
        ({"queries": ((4, 2), (4, 3))}, "queries: expected pairs of 1 or more, by rising numbers of patches"),
        ({"heads": 0}, "heads: expected 1 or more, got 0"),
        ({"norm_eps": 0.0}, r"norm_eps: expected more than 0, got 0\.0"),
    ],
)
def test_numbers_that_make_no_connector_are_refused(fields, problem):
    with pytest.raises(SpecError, match=rf"^query_attention\.{problem}"):
        QueryAttention(**fields)
