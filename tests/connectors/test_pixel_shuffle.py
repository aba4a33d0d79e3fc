import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import Idefics3Config, InternVLConfig, InternVLModel
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

from vlmkit.connectors import connectors
from vlmkit.connectors.blocks import merge_blocks
from vlmkit.features import Features, Grid, GridError
from vlmkit.spec import SpecError

PixelShuffle = connectors["pixel_shuffle"]


def test_the_order_of_a_merged_token():
    """Patches 0..7 of a 2 x 4 grid; channels are patch and 10 + patch."""
    patches = torch.arange(8.0)
    features = Features(torch.stack([patches, 10 + patches], dim=1), (Grid(1, 2, 4),))
    assert merge_blocks(features, 2, "dh dw c").tolist() == [[0, 10, 1, 11, 4, 14, 5, 15], [2, 12, 3, 13, 6, 16, 7, 17]]
    assert merge_blocks(features, 2, "c dh dw").tolist() == [[0, 1, 4, 5, 10, 11, 14, 15], [2, 3, 6, 7, 12, 13, 16, 17]]


@pytest.mark.parametrize("ratio", [2, 3])
def test_with_channels_first_it_is_a_strided_convolution(ratio):
    """Measured 5e-7, allowed 1e-5."""
    module = PixelShuffle(ratio=ratio, order="c dh dw", bias=True).build(8, 16)
    grids = (Grid(1, 2 * ratio, 3 * ratio), Grid(2, ratio, 2 * ratio))
    features = Features(torch.randn(sum(grid.tokens for grid in grids), 8), grids)
    weight = module.linear.weight.view(16, 8, ratio, ratio)
    expected = [
        functional.conv2d(view.view(grid.frames, grid.rows, grid.columns, 8).permute(0, 3, 1, 2), weight, module.linear.bias, stride=ratio)
        .permute(0, 2, 3, 1)
        .reshape(-1, 16)
        for view, grid in zip(features.views(), grids, strict=True)
    ]
    torch.testing.assert_close(module(features).tokens, torch.cat(expected), rtol=1e-5, atol=1e-5)


def test_it_computes_what_transformers_idefics3_connector_computes():
    """Same operations on the same weights: bit for bit, allowed 1e-6."""
    text = {"model_type": "llama", "hidden_size": 16, "num_attention_heads": 2}
    config = Idefics3Config(scale_factor=2, vision_config={"hidden_size": 8}, text_config=text)
    published = Idefics3Connector(config)
    module = PixelShuffle().build(8, 16)
    (weight,) = published.parameters()
    module.linear.weight = nn.Parameter(weight.detach().clone())
    tokens = torch.randn(2, 36, 8)
    out = module(Features(tokens.flatten(0, 1), (Grid(1, 6, 6),) * 2))
    torch.testing.assert_close(out.tokens, published(tokens).flatten(0, 1), rtol=1e-6, atol=1e-6)


def test_a_grid_that_does_not_divide_is_refused_with_both_numbers():
    with pytest.raises(GridError, match=r"^pixel_shuffle merges 2x2 patches, but the grid is 27x27$"):
        PixelShuffle().grid_out(Grid(1, 27, 27))


def test_a_class_token_is_refused_with_the_way_out():
    with pytest.raises(GridError, match=r"pixel_shuffle merges 2x2 patches, but the grid is 24x24 \+ 1; drop the class token"):
        PixelShuffle().grid_out(Grid(1, 24, 24, prefix=1))


def test_the_ratio_is_what_a_policy_aligns_to():
    assert PixelShuffle(ratio=3).merge == 3
    with pytest.raises(SpecError, match=r"pixel_shuffle\.ratio: expected 1 or more, got 0"):
        PixelShuffle(ratio=0)


def test_with_an_mlp_behind_it_computes_what_internvls_projector_computes():
    """transformers' pixel shuffle is "v2": tokens in raster order. Measured 2e-7, allowed 1e-5."""
    vision = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 1}
    text = {"model_type": "qwen2", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    published = InternVLModel(InternVLConfig(vision_config=vision, text_config=text))
    projector = published.multi_modal_projector
    module = PixelShuffle(inner=connectors["mlp"](norm_in="layer_norm")).build(8, 16)
    names = {"layer_norm": "inner.layers.0", "linear_1": "inner.layers.1", "linear_2": "inner.layers.3"}
    for parameter in projector.parameters():
        nn.init.normal_(parameter)
    module.load_state_dict(
        {f"{names[name.partition('.')[0]]}.{name.partition('.')[2]}": value for name, value in projector.state_dict().items()}
    )
    tokens = torch.randn(2, 36, 8)
    theirs = projector(published.pixel_shuffle(tokens.view(2, 6, 6, 8)).flatten(1, 2))
    out = module(Features(tokens.flatten(0, 1), (Grid(1, 6, 6),) * 2))
    assert out.grids == (Grid(1, 3, 3),) * 2
    torch.testing.assert_close(out.tokens, theirs.flatten(0, 1), rtol=1e-5, atol=1e-5)


def test_what_stands_behind_may_merge_as_well():
    connector = PixelShuffle(inner=PixelShuffle(ratio=3))
    assert (connector.merge, connector.grid_out(Grid(1, 6, 12))) == (6, Grid(1, 1, 2))
    assert connector.build(2, 5)(Features(torch.randn(72, 2), (Grid(1, 6, 12),))).tokens.shape == (2, 5)
    with pytest.raises(GridError, match="merges 3x3 patches, but the grid is 2x6"):
        connector.grid_out(Grid(1, 4, 12))


def test_a_bias_without_its_layer_and_a_joiner_behind_are_refused():
    with pytest.raises(SpecError, match=r"pixel_shuffle\.bias: there is no linear layer beside inner='mlp'"):
        PixelShuffle(bias=True, inner=connectors["mlp"]())
    with pytest.raises(SpecError, match=r"pixel_shuffle\.inner: 'joined' takes several towers"):
        PixelShuffle(inner=connectors["joined"]())
