"""Splice: visual tokens stand where the index says, learned embeddings where theirs says, and gradients go where they came from."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.tiny import architecture, language_model, part
from vlmkit.features import Features, Grid
from vlmkit.fusion.incoming import Incoming
from vlmkit.fusion.module import FusionModule
from vlmkit.layout import layouts

GRIDS = (Grid(1, 1, 2), Grid(1, 1, 3))
DIM = 32


@functools.cache
def module(layout: str = "run") -> FusionModule:
    spec = language_model("llama")
    return architecture().fusion.build(spec.build(spec.transformers_config()), part(layouts, layout))


def features(*grids: Grid) -> Features:
    total = sum(grid.tokens for grid in grids)
    return Features(torch.arange(total * DIM, dtype=torch.float32).view(total, DIM) + 100, grids)


def splice(index: list[list[int]], visual: Features) -> tuple[Tensor, Tensor]:
    places, mask = torch.tensor(index), torch.ones(len(index), len(index[0]))
    embeddings = -torch.arange(places.numel() * DIM, dtype=torch.float32).view(*places.shape, DIM)
    out = module()(Incoming(embeddings, visual, places, attention_mask=mask))
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
    visual = Features(torch.randn(2, DIM, requires_grad=True), (Grid(1, 1, 2),))
    embeddings = torch.randn(1, 3, DIM, requires_grad=True)
    module()(Incoming(embeddings, visual, torch.tensor([[-1, 0, 1]])))["inputs_embeds"].sum().backward()
    assert visual.tokens.grad is not None
    assert embeddings.grad is not None
    assert torch.equal(visual.tokens.grad, torch.ones(2, DIM))
    assert torch.equal(embeddings.grad[0], torch.tensor([[1.0] * DIM, [0.0] * DIM, [0.0] * DIM]))


def test_visual_tokens_to_which_nothing_refers_have_a_gradient_of_zero() -> None:
    visual = Features(torch.randn(2, DIM, requires_grad=True), (Grid(1, 1, 2),))
    embeddings = torch.randn(1, 3, DIM)
    out = module()(Incoming(embeddings, visual))["inputs_embeds"]
    assert torch.equal(out, embeddings)
    out.sum().backward()
    assert visual.tokens.grad is not None
    assert torch.equal(visual.tokens.grad, torch.zeros(2, DIM))


def test_visual_tokens_take_the_dtype_of_the_text() -> None:
    text = torch.zeros(1, 2, DIM, dtype=torch.bfloat16)
    assert module()(Incoming(text, features(Grid(1, 1, 2)), torch.tensor([[0, 1]])))["inputs_embeds"].dtype == torch.bfloat16


def test_learned_embeddings_stand_where_their_own_index_says_and_learn() -> None:
    fusion = module("unpadded_rows")
    assert fusion.learned is not None
    embeddings = torch.randn(1, 4, DIM)
    index, learned = torch.tensor([[0, -1, 1, -1]]), torch.tensor([[-1, 0, -1, -1]])
    visual = features(Grid(1, 1, 2))
    out = fusion(Incoming(embeddings, visual, index, learned))["inputs_embeds"]
    assert torch.equal(out[0], torch.stack([visual.tokens[0], fusion.learned.newline, visual.tokens[1], embeddings[0, 3]]))
    out.sum().backward()
    assert torch.equal(fusion.learned.newline.grad, torch.ones(DIM))


@pytest.mark.parametrize("visual", [None, features(Grid(1, 1, 2))])
def test_a_row_of_text_calls_for_learned_embeddings_all_the_same(visual: Features | None) -> None:
    fusion = module("unpadded_rows")
    assert fusion.learned is not None
    called: list[object] = []
    with fusion.learned.register_forward_hook(lambda *call: called.append(call)):
        fusion(Incoming(torch.randn(1, 2, DIM), visual))
    assert len(called) == 1
