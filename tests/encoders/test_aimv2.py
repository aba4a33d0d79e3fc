"""AIMv2's tower beside transformers' Aimv2VisionModel."""

import pytest
import torch
from beside import NUMBERS, features, filled, images
from drawn import draw, tiny
from transformers import Aimv2VisionConfig, Aimv2VisionModel

from vlmkit.encoders.aimv2 import Aimv2
from vlmkit.features import Grid, GridError
from vlmkit.spec import SpecError

NATIVE = Grid(1, 5, 5)


def theirs(**changes):
    return draw(Aimv2VisionModel(Aimv2VisionConfig(**(NUMBERS | {"use_head": False} | changes))))


def ours(model, **changes):
    return filled(Aimv2.from_config(model.config, **changes), model.state_dict())


@pytest.mark.parametrize(
    ("native", "grid"), [(False, NATIVE), (True, NATIVE), (True, Grid(1, 3, 7)), (True, Grid(1, 9, 2))], ids=lambda value: str(value)
)
def test_features_are_transformers(native, grid):
    """Measured 0 with a table and 1.4e-6 in features of size 6 without: sines are float32 here and float64 there."""
    model = theirs(is_native=native)
    with torch.no_grad():
        out = model(images(grid), output_hidden_states=True)
    assert (features(ours(model), grid) - out.last_hidden_state).abs().max() < 1e-5
    for layer in (-1, -2, 1):
        bare = ours(model, layer=layer, final_norm=False)
        assert (features(bare, grid) - out.hidden_states[layer]).abs().max() < 1e-5


def test_sines_and_cosines_serve_every_grid_and_need_no_table():
    spec = tiny("aimv2", table="sincos", positions="fixed")
    assert spec.grid_out(Grid(1, 3, 8)) == Grid(1, 3, 8)
    assert not any("position" in name for name in spec.build().state_dict())
    with pytest.raises(GridError, match="one still view at a time"):
        spec.grid_out(Grid(2, 3, 8))
    with pytest.raises(SpecError, match=r"aimv2\.width: sines and cosines .* multiple of 4, got 30"):
        tiny("aimv2", width=30, heads=2, table="sincos")


@pytest.mark.parametrize("bias", ["qkv_bias", "mlp_bias"])
def test_a_config_with_biases_has_a_tower_with_them(bias):
    model = theirs(**{bias: True})
    tower = ours(model)
    assert tower.spec == Aimv2.from_config(theirs().config).replace(**{bias: True})
    with torch.no_grad():
        out = model(images(NATIVE))
    assert (features(tower, NATIVE) - out.last_hidden_state).abs().max() < 1e-5


def test_numbers_of_the_published_model():
    """apple/aimv2-large-patch14-336 without the pooling head."""
    with torch.device("meta"):
        reference = Aimv2VisionModel(Aimv2VisionConfig(image_size=336, use_head=False))
        tower = Aimv2().build()
    assert (
        sum(parameter.numel() for parameter in tower.parameters())
        == sum(parameter.numel() for parameter in reference.parameters())
        == 309_525_504
    )


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("changes", [{}, {"layer": -2, "final_norm": False}])
def test_load_pretrained_from_a_directory_of_transformers_with_its_head(tmp_path, changes, native):
    model = theirs(use_head=True, is_native=native)
    model.save_pretrained(tmp_path)
    table = "sincos" if native else "learned"
    spec = tiny("aimv2", checkpoint=str(tmp_path), table=table, **changes)
    tower = spec.build().eval()
    spec.load_pretrained(tower)
    assert torch.equal(features(tower, NATIVE), features(ours(model, **changes), NATIVE))
    with pytest.raises(SpecError, match="is_native"):
        tiny("aimv2", checkpoint=str(tmp_path), table="learned" if native else "sincos").load_pretrained(tower)
