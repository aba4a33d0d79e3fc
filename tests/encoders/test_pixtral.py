"""Pixtral's tower beside transformers' PixtralVisionModel, which packs all images into one sequence."""

import pytest
import torch
from beside import filled
from drawn import draw, patchify, tiny
from transformers import PixtralVisionConfig, PixtralVisionModel

from vlmkit.encoders.pixtral import Pixtral
from vlmkit.features import Grid
from vlmkit.spec import SpecError

NUMBERS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "patch_size": 4}
GRIDS = (Grid(1, 3, 8), Grid(1, 7, 4), Grid(1, 3, 8), Grid(1, 1, 1))


def theirs(**changes):
    return draw(PixtralVisionModel(PixtralVisionConfig(**(NUMBERS | {"hidden_act": "silu"} | changes))))


def ours(model, **changes):
    return filled(tiny("pixtral", **changes), model.state_dict())


def images():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(1, 3, grid.rows * 4, grid.columns * 4, generator=generator) for grid in GRIDS]


@pytest.mark.parametrize("layer", [-1, -2, 1])
def test_features_are_transformers_hidden_states(layer):
    """Four images of three sizes, padded and masked there, in one call here. Measured 1e-6 in features of size 5."""
    model = theirs()
    padded = torch.zeros(len(GRIDS), 3, 28, 32)
    for number, image in enumerate(images()):
        padded[number, :, : image.shape[2], : image.shape[3]] = image
    sizes = torch.tensor([[grid.rows * 4, grid.columns * 4] for grid in GRIDS])
    with torch.no_grad():
        expected = model(padded, image_sizes=sizes, output_hidden_states=True).hidden_states[layer][0]
        found = ours(model, layer=layer)(torch.cat([patchify(image, 4) for image in images()]), GRIDS).tokens
    assert found.abs().max() > 1
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("changes", [{"rope_parameters": {"rope_type": "axial", "rope_theta": 50.0}}, {"hidden_act": "gelu"}])
def test_a_transformers_config_is_read(changes):
    model = theirs(**changes)
    spec = Pixtral.from_config(model.config)
    tower = spec.build().eval()
    tower.load_state_dict(model.state_dict())
    image = images()[0]
    with torch.no_grad():
        expected = model(image).last_hidden_state[0]
        assert (tower(patchify(image, 4), GRIDS[:1]).tokens - expected).abs().max() < 1e-4
        assert (ours(model)(patchify(image, 4), GRIDS[:1]).tokens - expected).abs().max() > 0.01


def test_numbers_of_the_published_model():
    with torch.device("meta"):
        reference = PixtralVisionModel(PixtralVisionConfig())
        tower = Pixtral().build()
    assert (
        sum(parameter.numel() for parameter in tower.parameters())
        == sum(parameter.numel() for parameter in reference.parameters())
        == 403_489_792
    )


def test_load_pretrained_from_a_directory_of_transformers(tmp_path):
    model = theirs()
    model.save_pretrained(tmp_path)
    for changes in ({}, {"layer": -2}):
        spec = tiny("pixtral", checkpoint=str(tmp_path), **changes)
        tower = spec.build().eval()
        spec.load_pretrained(tower)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in tower.state_dict().items())
    with pytest.raises(SpecError, match="rope_theta"):
        tiny("pixtral", checkpoint=str(tmp_path), theta=50.0).load_pretrained(tower)


def test_heads_that_do_not_rotate_in_two_axes_are_refused():
    with pytest.raises(SpecError, match=r"pixtral\.heads: 2 channels a head, expected a multiple of 4"):
        tiny("pixtral", heads=16)
