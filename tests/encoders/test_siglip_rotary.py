"""VideoLLaMA 3's tower beside transformers' VideoLlama3VisionModel, which packs all views into one sequence."""

import pytest
import torch
from drawn import draw, tiny
from transformers import SiglipVisionConfig, SiglipVisionModel, VideoLlama3VisionConfig, VideoLlama3VisionModel
from transformers.vision_utils import get_vision_position_ids

from vlmkit.encoders.siglip_rotary import SiglipRotary
from vlmkit.features import Grid
from vlmkit.spec import SpecError

NUMBERS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "patch_size": 4}
GRIDS = (Grid(1, 3, 8), Grid(1, 7, 4), Grid(1, 3, 8), Grid(1, 1, 1))
FILMS = (Grid(3, 2, 4), Grid(1, 3, 8), Grid(2, 4, 2))


def theirs(**changes):
    return draw(VideoLlama3VisionModel(VideoLlama3VisionConfig(**(NUMBERS | changes))))


def ours(model, **changes):
    tower = tiny("siglip_rotary", **changes).build().eval()
    weights = model.state_dict()
    tower.load_state_dict({name: weights[name] for name in tower.state_dict()})
    return tower


def patches(grids=GRIDS):
    """Normalised patches in raster order."""
    return torch.randn(sum(grid.tokens for grid in grids), 48, generator=torch.Generator().manual_seed(3))


def sizes(grids):
    return torch.tensor([[grid.frames, grid.rows, grid.columns] for grid in grids])


def test_features_are_transformers_last_hidden_state():
    """Pictures of three sizes and films among them. Measured 1e-6 in features of size 4."""
    model = theirs()
    for grids in (GRIDS, FILMS, GRIDS[:1], FILMS[:1] * 2):
        pixels = patches(grids)
        with torch.no_grad():
            expected = model(pixels, sizes(grids), torch.ones(len(grids), dtype=torch.long)).last_hidden_state
            found = ours(model)(pixels, grids).tokens
        assert found.abs().max() > 1
        assert (found - expected).abs().max() < 1e-4


def test_the_published_order_of_patches_that_are_merged_later_makes_no_difference():
    """Published patches of a film come in blocks of merge x merge; those of vlmkit row by row."""
    model, grid = theirs(), Grid(2, 4, 6)
    pixels = patches((grid,))
    blocks = torch.arange(grid.tokens).view(2, 2, 2, 3, 2).transpose(2, 3).flatten()
    with torch.no_grad():
        states = model.encoder(
            model.embeddings(pixels[blocks]),
            cu_seqlens=torch.tensor([0, 24, 48], dtype=torch.int32),
            position_embeddings=model.rotary_pos_emb(pixels, get_vision_position_ids(sizes((grid,)), torch.tensor([2]))),
        ).last_hidden_state
        found = ours(model)(pixels, (grid,)).tokens
    assert (found[blocks] - model.post_layernorm(states)).abs().max() < 1e-4


def test_frames_attend_to_themselves_alone():
    tower, film = ours(theirs()), Grid(3, 2, 4)
    pixels = patches((film,))
    with torch.no_grad():
        frames = tower(pixels, (Grid(1, 2, 4),) * 3).tokens
        assert (tower(pixels, (film,)).tokens - frames).abs().max() < 1e-5


@pytest.mark.parametrize("grids", [GRIDS, FILMS, FILMS[:1]])
def test_every_block_is_called_once_whatever_the_sizes(grids):
    tower = ours(theirs())
    calls = []
    for name, module in tower.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    tower(patches(grids), grids)
    assert sorted(calls) == sorted({name.rpartition(".")[0] for name, _ in tower.named_parameters()})


@pytest.mark.parametrize("layer", [-2, 1])
def test_another_layer_is_transformers_hidden_state_behind_the_norm(layer):
    model, pixels = theirs(), patches()
    with torch.no_grad():
        states = model(pixels, sizes(GRIDS), torch.ones(len(GRIDS), dtype=torch.long), output_hidden_states=True).hidden_states
        found = ours(model, layer=layer)(pixels, GRIDS).tokens
        assert (found - model.post_layernorm(states[layer])).abs().max() < 1e-4


@pytest.mark.parametrize("changes", [{"rope_parameters": {"rope_type": "axial", "rope_theta": 50.0}}, {"hidden_act": "quick_gelu"}])
def test_a_transformers_config_is_read(changes):
    model, pixels = theirs(**changes), patches(GRIDS[:1])
    tower = SiglipRotary.from_config(model.config).build().eval()
    tower.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = model(pixels, sizes(GRIDS[:1]), torch.ones(1, dtype=torch.long)).last_hidden_state
        assert (tower(pixels, GRIDS[:1]).tokens - expected).abs().max() < 1e-4
        assert (ours(model)(pixels, GRIDS[:1]).tokens - expected).abs().max() > 1e-3


def test_numbers_of_the_published_model_are_siglips_without_its_table():
    numbers = {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304, "patch_size": 14}
    with torch.device("meta"):
        siglip = SiglipVisionModel(SiglipVisionConfig(**numbers, image_size=384, vision_use_head=False))
        towers = SiglipRotary().build(), VideoLlama3VisionModel(VideoLlama3VisionConfig(**numbers)), siglip
    ours, published, whole = (sum(parameter.numel() for parameter in tower.parameters()) for tower in towers)
    assert ours == published == whole - 27**2 * 1152 == 412_147_440


def test_load_pretrained_from_a_directory_of_transformers(tmp_path):
    model = theirs()
    model.save_pretrained(tmp_path)
    for changes in ({}, {"layer": -2}):
        spec = tiny("siglip_rotary", checkpoint=str(tmp_path), **changes)
        tower = spec.build().eval()
        spec.load_pretrained(tower)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in tower.state_dict().items())
    with pytest.raises(SpecError, match="rope_theta"):
        tiny("siglip_rotary", checkpoint=str(tmp_path), theta=50.0).load_pretrained(tower)


def test_heads_that_do_not_rotate_in_two_axes_are_refused():
    with pytest.raises(SpecError, match=r"siglip_rotary\.heads: 2 channels a head, expected a multiple of 4"):
        tiny("siglip_rotary", heads=16)
