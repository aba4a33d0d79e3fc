"""Raw patches: what goes in comes out, in the order asked for."""

import pytest
import torch
from drawn import patchify, pixels

from vlmkit.encoders.patches import Patches
from vlmkit.features import Grid
from vlmkit.spec import SpecError

GRIDS = (Grid(1, 3, 5), Grid(1, 2, 2))


def test_colour_by_colour_is_what_went_in():
    tower = Patches(patch=4, order="c dh dw").build()
    patches = pixels(GRIDS, 4)
    assert torch.equal(tower(patches, GRIDS).tokens, tower.normalise(patches))
    assert torch.allclose(tower(patches, GRIDS).tokens, patches.float() / 127.5 - 1, atol=1e-6)


def test_pixel_by_pixel_is_fuyus_processor():
    from transformers import FuyuImageProcessor

    images = torch.randn(1, 3, 12, 20)
    theirs = FuyuImageProcessor(patch_size={"height": 4, "width": 4}).patchify_image(images)
    assert torch.equal(Patches(patch=4).build()(patchify(images, 4), GRIDS[:1]).tokens, theirs[0])


def test_it_has_no_weights_and_nothing_to_load():
    tower = Patches().build()
    assert tower.state_dict() == {}
    assert tower.spec.dim_out == 2700
    tower.spec.load_pretrained(tower)
    with pytest.raises(SpecError, match=r"patches\.patch: expected 1 or more, got 0"):
        Patches(patch=0)
