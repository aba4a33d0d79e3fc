"""Mistral Small 3.1's projector beside transformers' own."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers.models.mistral3.modeling_mistral3 import Mistral3MultiModalProjector as Published

from vlmkit.connectors.merged_mlp import MergedMlp
from vlmkit.features import Features, Grid, GridError
from vlmkit.spec import SpecError

NAMES = {"patch_merger.merging_layer": "merge", "linear_1": "mlp.0", "linear_2": "mlp.2"}


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_it_computes_what_transformers_projector_computes(ratio: int, bias: bool) -> None:
    """Measured 0, allowed 1e-5."""
    vision = {"model_type": "pixtral", "hidden_size": 8, "num_attention_heads": 2, "patch_size": 14}
    config = transformers.Mistral3Config(
        vision_config=vision,
        text_config={"model_type": "mistral", "hidden_size": 16, "rms_norm_eps": 1e-3},
        spatial_merge_size=ratio,
        multimodal_projector_bias=bias,
    )
    published = Published(config)
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.normal_(0, 0.3)
    module = MergedMlp(ratio=ratio, bias=bias, norm_eps=1e-3).build(8, 16)
    weights = published.state_dict()
    for theirs, ours in NAMES.items():
        weights = {name.replace(theirs, ours): value for name, value in weights.items()}
    module.load_state_dict(weights)
    grids = (Grid(1, 2 * ratio, 3 * ratio), Grid(1, ratio, 2 * ratio))
    features = Features(torch.randn(sum(grid.tokens for grid in grids), 8), grids)
    expected = published(features.tokens, [(grid.rows * 14, grid.columns * 14) for grid in grids])
    out = module(features)
    assert out.grids == (Grid(1, 2, 3), Grid(1, 1, 2))
    torch.testing.assert_close(out.tokens, expected, rtol=1e-5, atol=1e-5)


def test_between_the_published_widths_it_has_its_parameters() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in MergedMlp().build(1024, 5120).parameters()) == 35_652_608


def test_what_it_cannot_merge_is_refused_with_both_numbers() -> None:
    assert MergedMlp().merge == 2
    with pytest.raises(GridError, match=r"^merged_mlp merges 2x2 patches, but the grid is 27x27$"):
        MergedMlp().grid_out(Grid(1, 27, 27))
    with pytest.raises(SpecError, match=r"merged_mlp\.ratio: expected 1 or more, got 0"):
        MergedMlp(ratio=0)
    with pytest.raises(SpecError, match=r"merged_mlp\.norm_eps: expected more than 0, got 0.0"):
        MergedMlp(norm_eps=0.0)
