"""Qwen2-VL's tower beside transformers' own, whose processor orders patches by the blocks that its merger merges."""

import pytest
import torch
from drawn import draw, tiny
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from vlmkit.encoders.qwen2_vl import Qwen2VL
from vlmkit.features import Grid
from vlmkit.spec import SpecError

NUMBERS = {"embed_dim": 32, "depth": 3, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4, "hidden_size": 8}
GRIDS = (Grid(1, 4, 8), Grid(3, 2, 4), Grid(1, 4, 8), Grid(1, 2, 2))

sides = st.integers(1, 4).map(lambda half: 2 * half)
grids = st.lists(st.builds(Grid, st.integers(1, 3), sides, sides), min_size=1, max_size=4).map(tuple)


def theirs(**changes):
    return draw(Qwen2VisionTransformerPretrainedModel(Qwen2VLVisionConfig(**(NUMBERS | changes))))


def ours(model, **changes):
    tower = tiny("qwen2_vl", **changes).build().eval()
    weights = model.state_dict()
    tower.load_state_dict({name: weights[name] for name in tower.state_dict()})
    return tower


def patches(views):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(grid.tokens, 3 * 2 * 4 * 4, generator=generator) for grid in views]


def blocks(view, grid):
    """Rows of patches -> the order of the published processor."""
    return rearrange(view, "(f h dh w dw) c -> (f h w dh dw) c", f=grid.frames, dh=2, dw=2, w=grid.columns // 2)


def published(model, views, pixels, layer=-1):
    """Features of the last block, row by row."""
    ordered = torch.cat([blocks(view, grid) for view, grid in zip(pixels, views, strict=True)])
    sizes = torch.tensor([(grid.frames, grid.rows, grid.columns) for grid in views])
    found = model(ordered, grid_thw=sizes, output_hidden_states=True)
    state = found.last_hidden_state if layer == -1 else found.hidden_states[layer]
    rows = [
        rearrange(part, "(f h w dh dw) c -> (f h dh w dw) c", f=grid.frames, dh=2, dw=2, w=grid.columns // 2)
        for part, grid in zip(state.split([grid.tokens for grid in views]), views, strict=True)
    ]
    return torch.cat(rows)


MODEL = theirs()


@settings(max_examples=40, deadline=None)
@given(grids)
def test_features_of_pictures_and_films_of_any_sizes_are_transformers(views):
    """Measured 4e-6 in features of size 10."""
    pixels = patches(views)
    with torch.no_grad():
        expected = published(MODEL, views, pixels)
        found = ours(MODEL)(torch.cat(pixels), views).tokens
    assert found.abs().max() > 1
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("layer", [-2, 1])
def test_layers_are_transformers_hidden_states(layer):
    with torch.no_grad():
        expected = published(MODEL, GRIDS, patches(GRIDS), layer)
        found = ours(MODEL, layer=layer)(torch.cat(patches(GRIDS)), GRIDS).tokens
    assert (found - expected).abs().max() < 1e-4


def test_a_frame_sees_itself_alone_and_its_place_in_time_turns_nothing():
    pixels = torch.cat(patches((Grid(2, 4, 4),)))
    tower = ours(MODEL)
    with torch.no_grad():
        film = tower(pixels, (Grid(2, 4, 4),)).tokens
        frames = tower(pixels, (Grid(1, 4, 4),) * 2).tokens
    assert torch.equal(film, frames)


@pytest.mark.parametrize("changes", [{"rope_parameters": {"rope_type": "axial", "rope_theta": 50.0}}, {"hidden_act": "gelu"}])
def test_a_transformers_config_is_read(changes):
    model = theirs(**changes)
    tower = Qwen2VL.from_config(model.config).build().eval()
    weights = model.state_dict()
    tower.load_state_dict({name: weights[name] for name in tower.state_dict()})
    with torch.no_grad():
        expected = published(model, GRIDS, patches(GRIDS))
        assert (tower(torch.cat(patches(GRIDS)), GRIDS).tokens - expected).abs().max() < 1e-4
        assert (ours(model)(torch.cat(patches(GRIDS)), GRIDS).tokens - expected).abs().max() > 0.01


def test_numbers_of_the_published_model():
    with torch.device("meta"):
        reference = Qwen2VisionTransformerPretrainedModel(Qwen2VLVisionConfig())
        tower = Qwen2VL().build()
    own, merger = (sum(parameter.numel() for parameter in part.parameters()) for part in (reference, reference.merger))
    assert sum(parameter.numel() for parameter in tower.parameters()) == own - merger == 631_183_360


def test_load_pretrained_from_a_directory_of_the_tower_and_of_the_whole_model(tmp_path):
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    whole = Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(vision_config=NUMBERS, text_config=text | {"vocab_size": 32, "bos_token_id": 1, "eos_token_id": 2})
    )
    draw(whole)
    whole.save_pretrained(tmp_path / "whole")
    MODEL.save_pretrained(tmp_path / "tower")
    for directory, model in ((tmp_path / "tower", MODEL), (tmp_path / "whole", whole.model.visual)):
        for changes in ({}, {"layer": -2}):
            spec = tiny("qwen2_vl", checkpoint=str(directory), **changes)
            tower = spec.build().eval()
            spec.load_pretrained(tower)
            assert all(torch.equal(value, model.state_dict()[name]) for name, value in tower.state_dict().items())
    with pytest.raises(SpecError, match="rope_theta"):
        tiny("qwen2_vl", checkpoint=str(tmp_path / "tower"), theta=50.0).load_pretrained(tower)


def test_numbers_that_no_such_tower_has_are_refused():
    with pytest.raises(SpecError, match=r"qwen2_vl\.heads: 2 channels a head, expected a multiple of 4"):
        tiny("qwen2_vl", heads=16)
    with pytest.raises(SpecError, match=r"qwen2_vl\.mlp: 65 hidden channels, expected a multiple of the width 32"):
        tiny("qwen2_vl", mlp=65)
    with pytest.raises(SpecError, match=r"patches of 3 colours and 2 frames, but the config states 3 and 1"):
        Qwen2VL.from_config(Qwen2VLVisionConfig(temporal_patch_size=1))
