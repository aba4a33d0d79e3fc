"""VideoLLaMA 3's way from its tower to its language model: shrinking, which the published code does at the tower's end, and an MLP."""

import pytest
import torch
from transformers import VideoLlama3Config, VideoLlama3VisionConfig, VideoLlama3VisionModel
from transformers.models.video_llama_3.modeling_video_llama_3 import VideoLlama3Projector

from vlmkit.connectors import connectors
from vlmkit.features import Features, Grid, GridError
from vlmkit.spec import SpecError

BilinearMlp = connectors["bilinear_mlp"]
GRIDS = (Grid(1, 4, 6), Grid(3, 4, 2), Grid(1, 2, 4), Grid(2, 6, 6))
"""Two pictures and two films."""


def grouped(tokens: torch.Tensor, grid: Grid, merge: int) -> torch.Tensor:
    """The published order of patches: merge x merge neighbours one behind the other."""
    blocks = tokens.view(grid.frames, grid.rows // merge, merge, grid.columns // merge, merge, -1)
    return blocks.transpose(2, 3).flatten(0, 4)


@pytest.mark.parametrize("ratios", [(1, 2), (2, 2), (2, 1)])
def test_it_computes_what_transformers_computes(ratios):
    """Measured 1e-7, allowed 1e-5."""
    tower = VideoLlama3VisionModel(VideoLlama3VisionConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=1))
    published = VideoLlama3Projector(VideoLlama3Config(vision_config=tower.config, text_config={"hidden_size": 20, "model_type": "qwen2"}))
    module = BilinearMlp(ratio=ratios[0], ratio_clips=ratios[1]).build(12, 20)
    module.mlp.layers.load_state_dict(published.readout.state_dict())
    features = Features(torch.randn(sum(grid.tokens for grid in GRIDS), 12), GRIDS)
    merges = torch.tensor([ratios[grid.frames > 1] for grid in GRIDS])
    theirs = torch.cat([grouped(view, grid, int(merge)) for view, grid, merge in zip(features.views(), GRIDS, merges, strict=True)])
    sizes = torch.tensor([[grid.frames, grid.rows, grid.columns] for grid in GRIDS])
    expected = published(tower.pixel_unshuffle(theirs, sizes, merges))
    torch.testing.assert_close(module(features).tokens, expected, rtol=1e-5, atol=1e-5)


def test_a_ratio_of_two_is_the_mean_of_four_neighbours_and_of_three_the_one_in_the_middle():
    from vlmkit.connectors.bilinear_mlp_module import shrink

    tokens = torch.arange(36.0)[:, None]
    assert shrink(tokens[:8], Grid(1, 2, 4), 2).flatten().tolist() == [2.5, 4.5]
    assert shrink(tokens, Grid(1, 6, 6), 3).flatten().tolist() == [7, 10, 25, 28]


def test_a_film_is_known_by_its_frames():
    connector = BilinearMlp(ratio_clips=2)
    assert (connector.merge, connector.merge_clips) == (1, 2)
    assert connector.grid_out(Grid(1, 3, 5)) == Grid(1, 3, 5)
    assert connector.grid_out(Grid(2, 4, 6)) == Grid(2, 2, 3)
    with pytest.raises(GridError, match=r"^bilinear_mlp merges 2x2 patches, but the grid is 2x3x5$"):
        connector.grid_out(Grid(2, 3, 5))


@pytest.mark.parametrize(("fields", "named"), [({"ratio": 0}, "ratio"), ({"ratio_clips": 0}, "ratio_clips")])
def test_a_ratio_is_one_or_more(fields, named):
    with pytest.raises(SpecError, match=rf"^bilinear_mlp\.{named}: expected 1 or more, got 0$"):
        BilinearMlp(**fields)
