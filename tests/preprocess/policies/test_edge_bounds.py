"""Bounds on both sides, beside Idefics2's processor and encoder in transformers (torchvision backend).

transformers pads images to the largest of a batch and masks what is no image; a patch that is partly padding is masked whole.
Views here have only full patches.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Idefics2ImageProcessor, Idefics2VisionConfig
from transformers.image_utils import SizeDict
from transformers.models.idefics2.image_processing_idefics2 import get_resize_output_image_size
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

from tests.preprocess.policies.published import difference, geometries, image, processed, seen, shapes, views_of
from vlmkit.preprocess import Box, ImageSizeError, Size, policies
from vlmkit.spec import SpecError

EdgeBounds = policies["edge_bounds"]
PUBLISHED = Idefics2ImageProcessor()
PATCH = 14


def full_patches(pixel_mask):
    """(V, height, width) of pixels -> (V, rows, columns) of patches full of image: Idefics2Model's rule."""
    return pixel_mask.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).sum(dim=(-1, -2)) == PATCH * PATCH


def unmasked(batch):
    """The views that the encoder sees of a padded batch."""
    values, masks = batch["pixel_values"][0], full_patches(torch.as_tensor(batch["pixel_attention_mask"])[0])
    sides = [(int(mask[:, 0].sum()) * PATCH, int(mask[0].sum()) * PATCH) for mask in masks]
    return [view[:height, :width] for view, (height, width) in zip(views_of(values), sides, strict=True)]


@settings(max_examples=40, deadline=None)
@given(shapes, st.booleans(), st.booleans())
def test_pixels_are_those_of_idefics2(shape, noise, quarters):
    picture, policy = image(shape, noise), EdgeBounds(quarters=quarters)
    if quarters and min(shape) < 2:
        with pytest.raises((ZeroDivisionError, RuntimeError)):  # a quarter of it is empty
            processed(PUBLISHED, picture, do_image_splitting=True)
        with pytest.raises(ImageSizeError, match=rf"cuts quarters, but an image of {Size(*shape)} .* side of 1 pixel"):
            policy.plan(Size(*shape))
        return
    ours = seen(policy, picture)
    assert difference(ours, unmasked(processed(PUBLISHED, picture, do_image_splitting=quarters))) == 0


@settings(max_examples=300, deadline=None)
@given(geometries, st.integers(14, 1000), st.integers(0, 1500))
def test_sizes_are_those_of_idefics2(shape, shortest, more):
    (render,) = EdgeBounds(shortest=shortest, longest=shortest + more).plan(Size(*shape)).renders
    bounds = SizeDict(shortest_edge=shortest, longest_edge=shortest + more)
    assert (render.resize.height, render.resize.width) == get_resize_output_image_size(torch.empty(shape, device="meta"), bounds)
    (tile,) = render.tiles
    assert 0 <= render.resize.height - tile.height < PATCH
    assert 0 <= render.resize.width - tile.width < PATCH


def test_idefics2s_encoder_sees_only_full_patches():
    """The features of a padded, masked view are those of its full patches alone."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    config = Idefics2VisionConfig(**sizes, image_size=70, patch_size=PATCH)
    encoder = Idefics2VisionTransformer(config).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    padded, mask = torch.randn(1, 3, 63, 70), torch.zeros(1, 63, 70)
    mask[:, :47, :58] = 1  # 3.4 x 4.1 patches of image
    patches = full_patches(mask.long())
    with torch.no_grad():
        masked = encoder(padded, patch_attention_mask=patches).last_hidden_state[patches.flatten(1)]
        alone = encoder(padded[:, :, :42, :56]).last_hidden_state[0]
    torch.testing.assert_close(masked, alone, atol=1e-5, rtol=0)  # measured 1e-6


def test_worked_numbers():
    (render,) = EdgeBounds().plan(Size(480, 640)).renders
    assert (render.resize, render.tiles) == (Size(480, 640), (Box(0, 0, 476, 630),))
    assert EdgeBounds().plan(Size(100, 2000)).views == (Size(378, 980),)
    plan = EdgeBounds(quarters=True).plan(Size(801, 1200))
    assert [render.frame for render in plan.renders] == [
        Box(0, 0, 400, 600), Box(0, 600, 400, 600), Box(400, 0, 401, 600), Box(400, 600, 401, 600), None,
    ]  # fmt: skip


@pytest.mark.parametrize("fields", [dict(shortest=13), dict(longest=377), dict(factor=379)])
def test_bounds_out_of_order_are_refused(fields):
    with pytest.raises(SpecError, match="expected factor <= shortest <= longest, got"):
        EdgeBounds(**fields)
