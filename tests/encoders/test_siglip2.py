"""SigLIP 2's NaFlex tower beside transformers' Siglip2VisionModel, on what its own image processor makes of pictures."""

import numpy as np
import pytest
import torch
from beside import filled
from drawn import draw, tiny
from einops import rearrange
from PIL import Image
from transformers import Siglip2ImageProcessor, Siglip2VisionConfig, Siglip2VisionModel

from vlmkit.encoders.siglip2 import Siglip2
from vlmkit.features import Grid
from vlmkit.spec import SpecError

NUMBERS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "patch_size": 4, "num_patches": 25}
SIZES = [(40, 30), (21, 83), (20, 20), (64, 17)]
"""Heights and widths; 20x20 is the table's own grid of 5x5 patches where 25 are allowed."""


def theirs(**changes):
    return draw(Siglip2VisionModel(Siglip2VisionConfig(**(NUMBERS | changes))))


def ours(model, **changes):
    return filled(tiny("siglip2", **changes), model.state_dict())


def processed(patches=25):
    """What transformers' processor makes of pictures of several sizes: patches filled up, a mask, grids."""
    noise = np.random.default_rng(0)
    pictures = [Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES]
    return Siglip2ImageProcessor(patch_size=4, max_num_patches=patches)(pictures, return_tensors="pt")


def packed(batch):
    """Those patches one view after the other, colour by colour, without what fills them up; and their grids."""
    grids = tuple(Grid(1, *shape) for shape in batch["spatial_shapes"].tolist())
    rows = [row[: grid.tokens] for row, grid in zip(batch["pixel_values"], grids, strict=True)]
    return rearrange(torch.cat(rows), "n (d c) -> n (c d)", c=3), grids


def as_theirs(states, batch):
    return states[batch["pixel_attention_mask"].bool()]


@pytest.mark.parametrize("patches", [25, 60, 9])
def test_features_are_transformers_on_the_pixels_of_its_own_processor(patches):
    """Four pictures of different sizes in one batch, filled up and masked there. Measured 2e-6 in features of size 4."""
    model, batch = theirs(), processed(patches)
    with torch.no_grad():
        out = model(**batch, output_hidden_states=True)
        found, grids = packed(batch)
        assert len(set(grids)) >= 3
        assert (ours(model)(found, grids).tokens - as_theirs(out.last_hidden_state, batch)).abs().max() < 1e-5
        for layer in (-1, -2, 1):
            bare = ours(model, layer=layer, final_norm=False)
            assert (bare(found, grids).tokens - as_theirs(out.hidden_states[layer], batch)).abs().max() < 1e-5


def test_raw_pixels_are_normalised_as_its_processor_does():
    """Measured 5e-7: the same picture as uint8 patches."""
    side = 20
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    batch = Siglip2ImageProcessor(patch_size=4, max_num_patches=25)([Image.fromarray(pixels)], return_tensors="pt")
    raw = rearrange(torch.from_numpy(pixels), "(r dr) (k dk) c -> (r k) (c dr dk)", dr=4, dk=4)
    tower = ours(theirs())
    floats, grids = packed(batch)
    assert grids == (Grid(1, 5, 5),)
    assert (tower.normalise(raw) - floats).abs().max() < 1e-6


def test_numbers_of_the_published_model():
    """google/siglip2-base-patch16-naflex without the pooling head."""
    with torch.device("meta"):
        reference = Siglip2VisionModel(Siglip2VisionConfig(vision_use_head=False))
        tower = Siglip2().build()
    count = sum(parameter.numel() for parameter in tower.parameters())
    assert count == sum(parameter.numel() for parameter in reference.parameters()) == 85_843_200


def test_the_spec_of_a_config():
    assert Siglip2.from_config(Siglip2VisionConfig()) == Siglip2()
    small = Siglip2.from_config(Siglip2VisionConfig(**NUMBERS))
    assert (small.image_size, small.native_grid) == (20, Grid(1, 5, 5))
    with pytest.raises(SpecError, match="num_patches: expected a square number"):
        Siglip2.from_config(Siglip2VisionConfig(num_patches=200))


@pytest.mark.parametrize("changes", [{}, {"layer": -2, "final_norm": False}])
def test_load_pretrained_from_a_directory_of_transformers_with_its_head(tmp_path, changes):
    model = theirs()
    model.save_pretrained(tmp_path)
    spec = tiny("siglip2", checkpoint=str(tmp_path), **changes)
    tower = spec.build().eval()
    spec.load_pretrained(tower)
    found, grids = packed(processed())
    assert torch.equal(tower(found, grids).tokens, ours(model, **changes)(found, grids).tokens)
    wider = tiny("siglip2", checkpoint=str(tmp_path), image_size=24)
    with pytest.raises(SpecError, match="num_patches is 25, the spec says 36"):
        wider.load_pretrained(wider.build())
