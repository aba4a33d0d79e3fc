"""A model whose vocabulary was resized is saved, loaded, exported and asked as any other."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

import vlmkit
from tests.counted import TINY_MODELS
from tests.tiny import architecture, assistant, picture, user
from vlmkit.checkpoints import export
from vlmkit.spec import SpecError

TINY = vlmkit.list_models("*tiny*")
MORE = 20


def test_every_tiny_model_is_walked() -> None:
    assert len(TINY) == TINY_MODELS


@pytest.mark.parametrize("name", TINY)
def test_a_resized_model_is_saved_loaded_and_exported(name: str, tmp_path: Path) -> None:
    model, processor = vlmkit.build(name, seed=0), vlmkit.build_processor(name)
    before, rows = model.spec.language_model.vocabulary, model.get_input_embeddings().weight.detach().clone()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    batch = processor([[user(picture(), "what?")]])
    logits = model(**batch).logits
    at_first, _ = _exported(model, processor, tmp_path / "as-it-was")

    resized = model.resize_token_embeddings(before + MORE)
    assert resized is model.get_input_embeddings()
    assert len(resized.weight) == len(rows) + MORE
    assert torch.equal(resized.weight[: len(rows)], rows)
    assert (model.get_output_embeddings().weight is resized.weight) == tied
    assert model.spec.language_model.vocabulary == model.config.text_config.vocab_size == before + MORE
    after = model(**batch).logits
    assert after.shape[-1] == before + MORE
    assert torch.equal(after[..., :before], logits)
    with torch.no_grad():  # what was there is known to be kept; of what is new, something has to be loaded too
        resized.weight[-1] += 1

    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, reader = vlmkit.load(tmp_path)
    assert torch.equal(loaded(**reader([[user(picture(), "what?")]])).logits, model(**batch).logits)
    assert torch.equal(loaded.get_input_embeddings().weight, resized.weight)
    options = {"max_new_tokens": 3, "do_sample": False}
    assert torch.equal(loaded.generate(**batch, **options), model.generate(**batch, **options))
    assert loaded.train()(**reader([[user(picture(), "what?"), assistant("a dog")]])).loss.isfinite()

    refused, back = _exported(model, processor, tmp_path / "exported")
    assert refused == at_first  # if at all, for the reason that it had before
    if back is not None:
        assert back.spec.language_model.vocabulary == before + MORE
        assert torch.equal(back(**batch).logits, model(**batch).logits)


def _exported(model: vlmkit.VLM, processor: vlmkit.VLMProcessor, directory: Path) -> tuple[str, vlmkit.VLM | None]:
    """Why it cannot be exported, or empty, and what is read back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            export(model, processor, directory)
            return "", vlmkit.load(directory)[0]
        except SpecError as error:
            assert "no published model class can express" in str(error)
            return str(error), None
        except ImportError as error:  # SmolVLM's processor spells numbers, where the package for it is there
            assert "num2words" in str(error)
            return str(error), None


def test_sizes_are_rounded_up_and_those_that_lack_a_token_are_refused() -> None:
    described = architecture()
    model = vlmkit.build(described, seed=0)
    before = model.spec.language_model.vocabulary
    assert model.resize_token_embeddings() is model.get_input_embeddings()
    assert model.spec.language_model.vocabulary == before
    model.resize_token_embeddings(before + 1, pad_to_multiple_of=64)
    assert model.spec.language_model.vocabulary == model.get_input_embeddings().num_embeddings == -(-(before + 1) // 64) * 64
    with pytest.raises(SpecError, match="expected one token or more, got 0"):
        model.resize_token_embeddings(0)
    state = {name: tensor.shape for name, tensor in model.state_dict().items()}
    with pytest.raises(SpecError, match="pad_token_id: 256 is beyond the vocabulary of 100"):
        model.resize_token_embeddings(100)
    assert state == {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.resize_token_embeddings(before)
    assert model.spec == described
