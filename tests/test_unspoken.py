"""Tokens that are read and never said: rows of the embedding without a logit, beside published weights too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vlmkit
from vlmkit.sliced import PublishedWeights
from vlmkit.spec import SpecError
from vlmkit.weight_source import values_of

TINY = vlmkit.architecture("molmo-tiny")


def test_they_have_an_embedding_and_no_logit_and_no_other_model_says_a_word_of_them() -> None:
    model = vlmkit.build(TINY, seed=0)
    assert model.get_input_embeddings().weight.shape == (271, 32)
    assert model.get_output_embeddings().weight.shape == (263, 32)
    assert TINY.language_model.readable() == 271
    assert "unspoken" not in vlmkit.architecture("univa-vl-tiny").to_json()


def test_beside_published_weights_the_same_rows_are_drawn_whole_and_in_runs(tmp_path: Path) -> None:
    plain = TINY.language_model.replace(unspoken=0)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        written = plain.build(plain.transformers_config())
    written.save_pretrained(tmp_path)
    described = TINY.replace(encoder=TINY.encoder, language_model=TINY.language_model.replace(checkpoint=str(tmp_path)))
    changed = TINY.language_model.with_unspoken(plain.build(plain.transformers_config()))
    source = PublishedWeights(described, seed=0).language_model
    found = values_of(source, "model.embed_tokens.weight")
    assert torch.equal(found[:263], written.get_input_embeddings().weight)
    assert torch.equal(found[263:], changed.get_input_embeddings().weight[263:])
    assert 0.01 < float(found[263:].std()) < 0.03
    assert torch.equal(source.read("model.embed_tokens.weight", 262 * 32, 64).view(2, 32), found[262:264])
    assert torch.equal(source.read("model.embed_tokens.weight", 264 * 32, 5), found[264, :5])


def test_they_cannot_be_fewer_than_none_nor_where_the_embedding_is_the_head() -> None:
    words = TINY.language_model
    with pytest.raises(SpecError, match=r"language_model\.unspoken: expected 0 or more, got -1"):
        words.replace(unspoken=-1)
    tied = words.replace(config=words.config | {"tie_word_embeddings": True})
    assert any("unspoken: expected 0, for the embedding is the head's as well" in problem for problem in tied.problems())
