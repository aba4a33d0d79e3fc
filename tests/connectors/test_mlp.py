import pytest
import torch
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from vlmkit.connectors import connectors
from vlmkit.features import Features, Grid
from vlmkit.spec import SpecError

Mlp = connectors["mlp"]


def layers(connector, dim_in=1024, dim_out=4096):
    with torch.device("meta"):
        return list(connector.build(dim_in, dim_out).layers)


def number_of_parameters(connector, dim_in, dim_out):
    return sum(parameter.numel() for layer in layers(connector, dim_in, dim_out) for parameter in layer.parameters())


def test_llavas_projector_is_the_default():
    assert [type(layer) for layer in layers(Mlp())] == [nn.Linear, nn.GELU, nn.Linear]
    assert number_of_parameters(Mlp(), 1024, 4096) == 20_979_712
    assert number_of_parameters(Mlp(), 1024, 5120) == 31_467_520  # Pixtral: Mistral Nemo's width


def test_it_computes_what_transformers_llava_projector_computes():
    """Same operations on the same weights: bit for bit, allowed 1e-6."""
    published = LlavaMultiModalProjector(
        LlavaConfig(vision_config=CLIPVisionConfig(hidden_size=12), text_config=LlamaConfig(hidden_size=20, num_attention_heads=2))
    )
    module = Mlp().build(12, 20)
    for mine, theirs in (("0", published.linear_1), ("2", published.linear_2)):
        module.layers.get_submodule(mine).load_state_dict(theirs.state_dict())
    tokens = torch.randn(6, 12)
    torch.testing.assert_close(module(Features(tokens, (Grid(1, 2, 3),))).tokens, published(tokens), rtol=1e-6, atol=1e-6)


def test_yi_vl_has_norms_after_its_layers():
    yi = Mlp(norm_between="layer_norm", norm_out="layer_norm")
    assert [type(layer) for layer in layers(yi)] == [nn.Linear, nn.LayerNorm, nn.GELU, nn.Linear, nn.LayerNorm]
    assert number_of_parameters(yi, 1280, 4096) == 1280 * 4096 + 4096 * 4096 + 2 * 4096 + 2 * 2 * 4096


def test_internvl_has_a_norm_before_them():
    intern = Mlp(norm_in="layer_norm")
    first, *rest = layers(intern)
    assert first.normalized_shape == (1024,)
    assert [type(layer) for layer in rest] == [nn.Linear, nn.GELU, nn.Linear]


def test_nvlm_has_its_own_width_and_no_bias():
    nvlm = Mlp(norm_in="layer_norm", hidden=29568, bias=False)
    assert number_of_parameters(nvlm, 12800, 8192) == 2 * 12800 + 12800 * 29568 + 29568 * 8192  # 620.7M


def test_omnivlm_uses_the_tanh_gelu():
    _, gelu, _ = layers(Mlp(activation="gelu_tanh", hidden=4096))
    assert gelu.approximate == "tanh"


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_depth_counts_linear_layers(depth):
    built = layers(Mlp(depth=depth, activation="silu"))
    assert sum(isinstance(layer, nn.Linear) for layer in built) == depth
    assert sum(isinstance(layer, nn.SiLU) for layer in built) == depth - 1
    assert isinstance(built[-1], nn.Linear)


def test_the_epsilon_reaches_every_norm():
    built = layers(Mlp(norm_in="rms_norm", norm_between="layer_norm", norm_out="rms_norm", norm_eps=1e-3))
    norms = [layer for layer in built if isinstance(layer, nn.LayerNorm | nn.RMSNorm)]
    assert [norm.eps for norm in norms] == [1e-3] * 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(depth=0), "mlp.depth: expected 1 or more linear layers, got 0"),
        (dict(hidden=0), "mlp.hidden: .* got 0"),
        (dict(depth=1, hidden=8), "got 8 with depth 1"),
        (dict(norm_eps=0.0), "norm_eps: expected more than 0"),
        (dict(activation="swich"), "activation: transformers has no activation 'swich'; did you mean 'swish'"),
    ],
)
def test_nonsense_is_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        Mlp(**fields)
