"""SigLIP towers beside transformers' SiglipVisionModel."""

import pytest
import torch
from beside import NUMBERS, features, filled, images
from drawn import draw, patchify, tiny
from transformers import SiglipVisionConfig, SiglipVisionModel

from vlmkit.encoders.siglip import Siglip
from vlmkit.features import Grid

GRIDS = [Grid(1, 5, 5), Grid(1, 3, 8), Grid(1, 10, 9)]


def theirs(**changes):
    return draw(SiglipVisionModel(SiglipVisionConfig(**(NUMBERS | changes))))


def ours(model, **changes):
    return filled(tiny("siglip", **changes), getattr(model, "vision_model", model).state_dict())


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_features_are_transformers_last_hidden_state(grid):
    """Measured 0: the same modules in the same order."""
    model = theirs()
    with torch.no_grad():
        out = model(images(grid), interpolate_pos_encoding=True, output_hidden_states=True)
    assert (features(ours(model, positions="bicubic"), grid) - out.last_hidden_state).abs().max() < 1e-5
    for layer in (-1, -2, 1):
        bare = ours(model, layer=layer, final_norm=False, positions="bicubic")
        assert (features(bare, grid) - out.hidden_states[layer]).abs().max() < 1e-5


def test_maya_drops_the_first_patch():
    model = theirs()
    kept, dropped = ours(model), ours(model, first_patch="drop")
    assert torch.equal(features(kept, GRIDS[0])[:, 1:], features(dropped, GRIDS[0]))
    assert Siglip(patch=16, image_size=256, first_patch="drop").grid_out(Grid(1, 16, 16)) == Grid(1, 1, 255)


def test_bucketed_positions_are_idefics2s_tower():
    """Two images of different sizes, padded and masked there, in one call here. Measured 1e-6 in features of size 3."""
    from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
    from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

    model = draw(Idefics2VisionTransformer(Idefics2VisionConfig(**NUMBERS)))
    tower = tiny("siglip", positions="bucket").build().eval()
    tower.load_state_dict(model.state_dict())
    grids = (Grid(1, 3, 8), Grid(1, 7, 4))
    whole = [torch.randn(1, 3, grid.rows * 4, grid.columns * 4) for grid in grids]
    padded, mask = torch.zeros(2, 3, 28, 32), torch.zeros(2, 7, 8, dtype=torch.bool)
    for index, (image, grid) in enumerate(zip(whole, grids, strict=True)):
        padded[index, :, : grid.rows * 4, : grid.columns * 4] = image
        mask[index, : grid.rows, : grid.columns] = True
    with torch.no_grad():
        expected = model(padded, patch_attention_mask=mask).last_hidden_state[mask.flatten(1)]
        assert (tower(torch.cat([patchify(image, 4) for image in whole]), grids).tokens - expected).abs().max() < 1e-5


def test_numbers_of_the_published_model():
    """google/siglip-so400m-patch14-384 without the pooling head."""
    with torch.device("meta"):
        reference = SiglipVisionModel(SiglipVisionConfig(**Siglip().numbers(), vision_use_head=False))
        tower = Siglip().build()
    assert (
        sum(parameter.numel() for parameter in tower.parameters())
        == sum(parameter.numel() for parameter in reference.parameters())
        == 412_987_248
    )


@pytest.mark.parametrize("changes", [{}, {"layer": -2, "final_norm": False}])
def test_load_pretrained_from_a_directory_of_transformers_with_its_head(tmp_path, changes):
    model = theirs()
    model.save_pretrained(tmp_path)
    spec = tiny("siglip", checkpoint=str(tmp_path), **changes)
    tower = spec.build().eval()
    spec.load_pretrained(tower)
    assert torch.equal(features(tower, GRIDS[1]), features(ours(model, **changes), GRIDS[1]))
