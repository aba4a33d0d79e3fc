"""Scatter-add: a visual token is added to the embedding at its place, and to no other."""

from __future__ import annotations

import torch

import vlmkit
from tests.tiny import architecture, language_model, part
from vlmkit.features import Features, Grid
from vlmkit.fusion.incoming import Incoming
from vlmkit.layout import layouts


def test_each_place_holds_the_sum_and_both_learn() -> None:
    spec = language_model("llama")
    module = vlmkit.fusions["scatter_add"]().build(spec.build(spec.transformers_config()), part(layouts, "run"))
    embeddings = torch.randn(2, 5, 32, requires_grad=True)
    tokens = torch.randn(3, 32, requires_grad=True)
    index = torch.tensor([[-1, 0, 1, 2, -1], [2, -1, -1, -1, 0]])
    out = module(Incoming(embeddings, Features(tokens, (Grid(1, 1, 3),)), index))["inputs_embeds"]
    for row, places in enumerate(index.tolist()):
        for place, token in enumerate(places):
            wanted = embeddings[row, place] if token < 0 else embeddings[row, place] + tokens[token]
            assert torch.equal(out[row, place], wanted)
    out.sum().backward()
    assert embeddings.grad is not None
    assert tokens.grad is not None
    assert torch.equal(embeddings.grad, torch.ones(2, 5, 32))
    assert tokens.grad[:, 0].tolist() == [2, 1, 2]


def test_its_architecture_answers_with_any_layout_that_places_tokens() -> None:
    assert architecture(fusion="scatter_add").validate().kinds()["fusion"] == "scatter_add"
    assert any("looked at" in problem for problem in architecture(fusion="scatter_add", layout="seen").problems())
