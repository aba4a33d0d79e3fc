import pytest
import torch
from transformers import Idefics2Config
from transformers.models.idefics2.modeling_idefics2 import Idefics2Connector

import vlmkit
from vlmkit.connectors import connectors
from vlmkit.features import Features, Grid
from vlmkit.spec import SpecError

Perceiver = connectors["perceiver"]
TINY = dict(latents=4, depth=2, heads=4, kv_heads=2, head_dim=8)


@pytest.mark.parametrize("grids", [(Grid(1, 3, 4), Grid(1, 2, 5), Grid(1, 3, 4)), (Grid(1, 3, 4),) * 2])
def test_it_computes_what_transformers_idefics2_connector_computes(grids):
    """Views of several sizes, padded and masked there. Measured 2e-6 in tokens of size 3."""
    text = {"model_type": "mistral", "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    sizes = dict(resampler_n_latents=4, resampler_depth=2, resampler_n_heads=4, resampler_head_dim=8, num_key_value_heads=2)
    config = Idefics2Config(vision_config={"hidden_size": 8}, perceiver_config={**sizes, "hidden_size": 16}, text_config=text)
    published = Idefics2Connector(config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in published.named_parameters():
        parameter.data.normal_(1.0 if "norm" in name else 0.0, 0.1 if "norm" in name else 0.3, generator=generator)
    module = Perceiver(**TINY, hidden=24).build(8, 16)
    names = {"modality_projection.": "projection.", "perceiver_resampler.": ""}
    weights = published.state_dict()
    for theirs, ours in names.items():
        weights = {name.replace(theirs, ours): value for name, value in weights.items()}
    module.load_state_dict(weights)
    views = [torch.randn(grid.tokens, 8, generator=generator) for grid in grids]
    context = torch.nn.utils.rnn.pad_sequence(views, batch_first=True, padding_value=9.0)
    mask = torch.arange(12) < torch.tensor([[grid.tokens] for grid in grids])
    with torch.no_grad():
        expected = published(context, attention_mask=mask)
        out = module(Features(torch.cat(views), grids))
    assert out.grids == (Grid(1, 1, 4),) * len(grids)
    torch.testing.assert_close(out.tokens, expected.flatten(0, 1), rtol=1e-5, atol=1e-5)


def test_latents_differ_and_so_do_their_tokens():
    """Published ones are all alike before training and would stay so."""
    tokens = Perceiver(**TINY).build(8, 16)(Features(torch.randn(12, 8), (Grid(1, 3, 4),))).tokens
    assert torch.cdist(tokens, tokens).add(torch.eye(4)).min() > 1e-3


def test_each_frame_is_read_with_the_class_token():
    module = Perceiver(**TINY).build(8, 16)
    tokens = torch.randn(1 + 2 * 6, 8)
    video = module(Features(tokens, (Grid(2, 2, 3, prefix=1),)))
    images = module(Features(torch.cat([tokens[:7], tokens[:1], tokens[7:]]), (Grid(1, 2, 3, prefix=1),) * 2))
    assert video.grids == (Grid(2, 1, 4),)
    torch.testing.assert_close(video.tokens, images.tokens, rtol=1e-5, atol=1e-5)


def test_it_serves_another_system():
    llava = vlmkit.architecture("llava-1.5-7b").replace(connector=Perceiver(latents=32, depth=1)).validate()
    assert llava.tokens(vlmkit.Size(480, 640)) == 32
    assert llava.parameters().connector == 317_865_984


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"latents": 0}, "latents: expected 1 or more, got 0"),
        ({"hidden": 0}, "hidden: expected 1 or more, got 0"),
        ({"kv_heads": 3}, "kv_heads: 16 heads do not share 3 heads of keys and values evenly"),
        ({"norm_eps": 0.0}, r"norm_eps: expected more than 0, got 0\.0"),
    ],
)
def test_numbers_that_make_no_resampler_are_refused(fields, problem):
    with pytest.raises(SpecError, match=rf"^perceiver\.{problem}$"):
        Perceiver(**fields)
