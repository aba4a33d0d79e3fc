"""Qwen2-VL's merger beside transformers' own."""

import pytest
import torch
from einops import rearrange
from transformers.models.qwen2_vl.modeling_qwen2_vl import PatchMerger as Published

from vlmkit.connectors import connectors
from vlmkit.features import Features, Grid, GridError
from vlmkit.spec import SpecError

PatchMerger = connectors["patch_merger"]


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_it_computes_what_transformers_merger_computes(ratio):
    """Theirs takes patches block by block, as its processor orders them; ours takes them row by row. Measured 1e-6, allowed 1e-5."""
    published = Published(dim=16, context_dim=8, spatial_merge_size=ratio)
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.normal_(0, 0.3)
    module = PatchMerger(ratio=ratio).build(8, 16)
    module.load_state_dict({name.replace("ln_q", "norm"): value for name, value in published.state_dict().items()})
    grids = (Grid(1, 2 * ratio, 3 * ratio), Grid(3, ratio, 2 * ratio))
    features = Features(torch.randn(sum(grid.tokens for grid in grids), 8), grids)
    blocks = [
        rearrange(view, "(f h dh w dw) c -> (f h w dh dw) c", f=grid.frames, dh=ratio, dw=ratio, w=grid.columns // ratio)
        for view, grid in zip(features.views(), grids, strict=True)
    ]
    out = module(features)
    assert out.grids == (Grid(1, 2, 3), Grid(3, 1, 2))
    torch.testing.assert_close(out.tokens, published(torch.cat(blocks)), rtol=1e-5, atol=1e-5)


def test_between_qwen2_vls_widths_it_has_its_parameters():
    counts = []
    for width in (1536, 3584, 8192):
        with torch.device("meta"):
            counts.append(sum(parameter.numel() for parameter in PatchMerger().build(1280, width).parameters()))
    assert counts == [34_087_936, 44_575_744, 68_173_312]


def test_what_it_cannot_merge_is_refused_with_both_numbers():
    assert PatchMerger().merge == 2
    with pytest.raises(GridError, match=r"^patch_merger merges 2x2 patches, but the grid is 27x27$"):
        PatchMerger().grid_out(Grid(1, 27, 27))
    with pytest.raises(SpecError, match=r"patch_merger\.ratio: expected 1 or more, got 0"):
        PatchMerger(ratio=0)
    with pytest.raises(SpecError, match=r"patch_merger\.norm_eps: expected more than 0, got 0.0"):
        PatchMerger(norm_eps=0.0)
