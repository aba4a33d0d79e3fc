import pytest
import torch

from vlmkit.encoders.positions import resample
from vlmkit.features import Grid, GridError

NATIVE = Grid(1, 5, 5, prefix=1)
GRIDS = [Grid(1, 3, 8), Grid(1, 9, 2), Grid(1, 1, 1), Grid(1, 14, 11)]


def table(native: Grid = NATIVE, width: int = 8) -> torch.Tensor:
    return torch.randn(native.tokens, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", ["bicubic_antialias", "bicubic", "bilinear_antialias", "bilinear", "bucket", "fixed"])
def test_at_its_own_grid_the_table_is_returned_as_it_is(mode):
    assert torch.equal(resample(table(), NATIVE, Grid(1, 5, 5), mode), table())


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_bicubic_with_antialias_is_timms(grid):
    from timm.layers import resample_abs_pos_embed

    expected = resample_abs_pos_embed(table()[None], [grid.rows, grid.columns], num_prefix_tokens=1)[0]
    assert torch.equal(resample(table(), NATIVE, grid, "bicubic_antialias"), expected)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_bicubic_is_that_of_transformers(grid):
    from transformers import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

    embeddings = CLIPVisionEmbeddings(CLIPVisionConfig(hidden_size=8, num_attention_heads=2, image_size=20, patch_size=4))
    with torch.no_grad():
        embeddings.position_embedding.weight.copy_(table())
        expected = embeddings.interpolate_pos_encoding(torch.zeros(1, 1 + grid.tokens, 8), grid.rows * 4, grid.columns * 4)[0]
    assert torch.equal(resample(table(), NATIVE, grid, "bicubic"), expected)


@pytest.mark.parametrize("entries", [5, 26, 27, 70])
def test_bucket_is_that_of_idefics2_at_every_side(entries):
    from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig
    from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionEmbeddings

    native = Grid(1, entries, entries)
    embeddings = Idefics2VisionEmbeddings(Idefics2VisionConfig(hidden_size=4, image_size=entries, patch_size=1))
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_(), embeddings.patch_embedding.bias.zero_()
        embeddings.position_embedding.weight.copy_(table(native, 4))
        for side in range(1, entries + 6):
            expected = embeddings(torch.zeros(1, 3, side, 3), torch.ones(1, side, 3, dtype=torch.bool))[0]
            assert torch.equal(resample(table(native, 4), native, Grid(1, side, 3), "bucket"), expected), side


def test_the_filter_shows():
    square = resample(table(), NATIVE, Grid(1, 3, 8), "bicubic_antialias")
    for other in ("bicubic", "bilinear_antialias", "bilinear", "bucket"):
        assert (resample(table(), NATIVE, Grid(1, 3, 8), other) - square).abs().max() > 0.1


def test_the_class_position_is_kept_and_half_precision_is_filtered_in_float32():
    half = table().bfloat16()
    out = resample(half, NATIVE, Grid(1, 3, 8), "bicubic_antialias")
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, resample(half.float(), NATIVE, Grid(1, 3, 8), "bicubic_antialias").bfloat16())
    assert torch.equal(out[0], half[0])


def test_fixed_refuses_another_grid():
    with pytest.raises(GridError, match="5x5 grid, but the view is 3x8"):
        resample(table(), NATIVE, Grid(1, 3, 8), "fixed")
