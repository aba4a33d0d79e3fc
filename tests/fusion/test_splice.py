"""Splice: visual tokens stand where the index says, and what does not add up is said with both numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vlmkit.features import Features, Grid
from vlmkit.fusion.base import FusionError, Incoming
from vlmkit.fusion.splice import SpliceModule, check_places

GRIDS = (Grid(1, 1, 2), Grid(1, 1, 3))


def features(*grids: Grid, dim: int = 4) -> Features:
    total = sum(grid.tokens for grid in grids)
    return Features(torch.arange(total * dim, dtype=torch.float32).view(total, dim) + 100, grids)


def incoming(embeddings: Tensor, visual: Features, index: Tensor, mask: Tensor | None = None) -> Incoming:
    return Incoming(embeddings, visual, index, mask, position_ids=None, past_key_values=None, token_type_ids=None)


def splice(index: list[list[int]], visual: Features, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    places = torch.tensor(index)
    embeddings = -torch.arange(places.numel() * 4, dtype=torch.float32).view(*places.shape, 4)
    out = SpliceModule(whole=True)(incoming(embeddings, visual, places, mask))
    assert out["attention_mask"] is mask
    return embeddings, out["inputs_embeds"]


@given(data=st.data(), order=st.permutations(range(2)), texts=st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_each_place_holds_its_visual_token_and_each_text_its_embedding(data: st.DataObject, order: list[int], texts: list[int]) -> None:
    first = {0: 0, 1: 2}
    row = [-1] * texts[0]
    for view, after in zip(order, texts[1:], strict=True):
        row += [*range(first[view], first[view] + GRIDS[view].tokens), *[-1] * after]
    visual = features(*GRIDS)
    embeddings, spliced = splice([row, row[::-1]], visual)
    for sample, index in enumerate((row, row[::-1])):
        for place, token in enumerate(index):
            wanted = embeddings[sample, place] if token < 0 else visual.tokens[token]
            assert torch.equal(spliced[sample, place], wanted)


def test_without_images_the_embeddings_are_returned_as_they_are() -> None:
    embeddings, spliced = splice([[-1, -1]], features())
    assert spliced is embeddings


def test_gradients_reach_visual_tokens_and_only_the_embeddings_of_text() -> None:
    visual = Features(torch.randn(2, 4, requires_grad=True), (Grid(1, 1, 2),))
    embeddings = torch.randn(1, 3, 4, requires_grad=True)
    SpliceModule(whole=True)(incoming(embeddings, visual, torch.tensor([[-1, 0, 1]])))["inputs_embeds"].sum().backward()
    assert visual.tokens.grad is not None
    assert embeddings.grad is not None
    assert torch.equal(visual.tokens.grad, torch.ones(2, 4))
    assert torch.equal(embeddings.grad[0], torch.tensor([[1.0] * 4, [0.0] * 4, [0.0] * 4]))


def test_visual_tokens_take_the_dtype_of_the_text() -> None:
    text = torch.zeros(1, 2, 4, dtype=torch.bfloat16)
    out = SpliceModule(whole=True)(incoming(text, features(Grid(1, 1, 2)), torch.tensor([[0, 1]])))
    assert out["inputs_embeds"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([[0, 1, -1], [0, 1, 5]], r"sample 1 refers to visual token 5, but the images of the batch gave 5 \(2 views\)"),
        ([[0, 1, -1, -1], [2, 3, -1, -1]], r"sample 1: view 1 \(grid 1x3\) has 3 visual tokens, but 2 places in the text"),
        ([[0, -1, -1, -1]], r"sample 0: view 0 \(grid 1x2\) has 2 visual tokens, but 1 places in the text"),
        ([[0, 1, 0, -1]], r"sample 0: view 0 \(grid 1x2\) has 2 visual tokens, but 3 places in the text"),
    ],
)
def test_what_does_not_add_up_names_sample_view_and_both_numbers(index: list[list[int]], message: str) -> None:
    with pytest.raises(FusionError, match=message):
        splice(index, features(*GRIDS))


def test_a_view_may_be_shown_by_several_samples_twice_or_not_at_all() -> None:
    check_places(features(*GRIDS), torch.tensor([[0, 1, -1, -1], [0, 1, 0, 1], [-1, -1, -1, -1]]), whole=True)


def test_part_of_a_view_is_taken_where_the_layout_shows_parts() -> None:
    check_places(features(*GRIDS), torch.tensor([[0, -1, 3, -1]]), whole=False)


def test_places_without_any_image_in_the_batch_are_refused() -> None:
    with pytest.raises(FusionError, match=r"refers to visual token 0, but the images of the batch gave 0 \(0 views\)"):
        splice([[0]], features())
