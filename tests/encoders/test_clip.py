"""CLIP towers beside transformers' CLIPVisionModel."""

import pytest
import torch
from beside import NUMBERS, features, filled, images
from drawn import draw, tiny
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig, CLIPVisionModel

from vlmkit.encoders.clip import Clip
from vlmkit.encoders.segments import by_segments
from vlmkit.features import Grid
from vlmkit.spec import SpecError

GRIDS = [Grid(1, 5, 5), Grid(1, 3, 8), Grid(1, 10, 9)]


def theirs(**changes):
    return draw(CLIPVisionModel(CLIPVisionConfig(**(NUMBERS | changes))))


def ours(model, **changes):
    return filled(tiny("clip", **changes), getattr(model, "vision_model", model).state_dict())


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("layer", [-1, -2, -3, 1, 3])
def test_features_are_transformers_hidden_states(grid, layer):
    """Measured 0: the same modules in the same order."""
    model = theirs()
    with torch.no_grad():
        expected = model(images(grid), interpolate_pos_encoding=True, output_hidden_states=True).hidden_states[layer]
    positions = "fixed" if grid == GRIDS[0] else "bicubic"
    assert (features(ours(model, layer=layer, positions=positions), grid) - expected[:, 1:]).abs().max() < 1e-5
    assert (features(ours(model, layer=layer, positions=positions, class_token="keep"), grid) - expected).abs().max() < 1e-5


def test_the_final_norm_is_post_layernorm():
    model = theirs()
    with torch.no_grad():
        expected = model.post_layernorm(model(images(GRIDS[0])).last_hidden_state)[:, 1:]
    assert (features(ours(model, final_norm=True), GRIDS[0]) - expected).abs().max() < 1e-5


def test_layers_of_molmo():
    """Molmo joins hidden states -2 and -9 of CLIP L/14-336, and so keeps 23 blocks (arXiv:2409.17146)."""
    spec = Clip(layer=(-2, -9))
    assert spec.dim_out == 2048
    with torch.device("meta"):
        assert len(spec.build().layers) == 23


def test_numbers_of_the_published_model():
    """transformers' 303,507,456 without the final norm of the pooled class token."""
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Clip().build().parameters()) == 303_507_456 - 2 * 1024
        assert sum(parameter.numel() for parameter in CLIPVisionModel(CLIPVisionConfig(**Clip().numbers())).parameters()) == 303_507_456


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_attention_implementation_is_the_one_asked_for(attention):
    tower = ours(theirs(), attention=attention)
    assert tower.layers[0].self_attn.config._attn_implementation == by_segments(attention)
    assert (features(tower, GRIDS[0]) - features(ours(theirs()), GRIDS[0])).abs().max() < 1e-5


@pytest.mark.parametrize("whole", [False, True], ids=["vision model", "whole CLIP"])
@pytest.mark.parametrize("changes", [{}, {"layer": -2}, {"final_norm": True}])
def test_load_pretrained_from_a_directory_of_transformers(tmp_path, whole, changes):
    text = CLIPTextConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=CLIPVisionConfig(**NUMBERS).to_dict(), projection_dim=8)
    model = draw(CLIPModel(config)) if whole else theirs()
    model.save_pretrained(tmp_path)
    spec = tiny("clip", checkpoint=str(tmp_path), **changes)
    tower = spec.build().eval()
    spec.load_pretrained(tower)
    vision = model.vision_model if whole else model
    assert torch.equal(features(tower, GRIDS[1]), features(ours(vision, **changes), GRIDS[1]))


def test_a_checkpoint_that_does_not_fit_is_an_error_with_both_numbers(tmp_path):
    theirs(hidden_act="gelu", image_size=24).save_pretrained(tmp_path)
    spec = tiny("clip", checkpoint=str(tmp_path))
    with pytest.raises(SpecError, match="hidden_act is 'gelu', the spec says 'quick_gelu'; image_size is 24, the spec says 20"):
        spec.load_pretrained(spec.build())


def test_missing_weights_are_listed(tmp_path):
    from safetensors.torch import load_file, save_file

    theirs().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.fc1.bias"))
    save_file({key: value for key, value in weights.items() if key != name}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    spec = tiny("clip", checkpoint=str(tmp_path))
    with pytest.raises(SpecError, match=r"missing .*layers\.1\.mlp\.fc1\.bias"):
        spec.load_pretrained(spec.build())
    lower = spec.replace(layer=1)
    lower.load_pretrained(lower.build())
