import torch
from torch.nn import functional

from vlmkit.connectors import connectors
from vlmkit.features import Features, Grid


def test_it_is_one_linear_layer_and_a_class_token_passes():
    module = connectors["linear"]().build(1152, 2048)
    assert sum(p.numel() for p in module.parameters()) == 1152 * 2048 + 2048 == 2_361_344  # PaliGemma's projector
    features = Features(torch.randn(7, 1152), (Grid(1, 2, 3, prefix=1),))
    out = module(features)
    assert out.grids == features.grids
    torch.testing.assert_close(out.tokens, functional.linear(features.tokens, module.linear.weight, module.linear.bias))


def test_the_bias_can_be_left_out():
    assert connectors["linear"](bias=False).build(4, 6).linear.bias is None
