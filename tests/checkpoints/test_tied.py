"""Every family with one matrix for embeddings and head, and with two: an exported directory holds what its class will read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from families.registered import SYSTEMS
from families.system import System, user
from families.tiny import draw, picture

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.language_model import LanguageModel

ONE_A_CLASS = [system for system in SYSTEMS if system.tiny not in ("bakllava-tiny", "aimv2-tiny", "maya-tiny", "paligemma2-tiny")]
"""Without further systems of the same class."""


@pytest.mark.filterwarnings("ignore:.*leaves out:UserWarning", "ignore:.*does not build:UserWarning")
@pytest.mark.parametrize("system", ONE_A_CLASS, ids=lambda system: system.tiny)
def test_what_a_system_ties_may_be_two_and_what_it_does_not_one(system: System, tmp_path: Path) -> None:
    """As the named model has it, tests of the systems export it."""
    reference = system.reference()
    spec = vlmkit.architecture(system.tiny)
    tied = not spec.language_model.transformers_config().tie_word_embeddings
    text = spec.language_model.replace(config=spec.language_model.config | {"tie_word_embeddings": tied})
    model = draw(vlmkit.build(spec.replace(language_model=text)))
    processor = vlmkit.build_processor(spec, tokenizer=reference.processor.tokenizer)
    export(model, processor, tmp_path)
    again, report = type(reference.model).from_pretrained(tmp_path, output_loading_info=True)
    assert not [name for name in report["missing_keys"] if not name.startswith(system.unread)]
    assert not report["unexpected_keys"]
    inputs = reference.inputs(reference.processor, [user("What is this?", picture(40, 52))])
    batch = processor([[user("What is this?", picture(40, 52))]], add_generation_prompt=True)
    batch["pixel_values"] = reference.patches(inputs, spec.encoder)
    with torch.no_grad():
        expected, found = again.eval()(**inputs).logits[0], model(**batch).logits[0]
    assert float((found - expected).abs().max()) <= system.logits_within


def test_a_decoder_whose_embeddings_the_class_cannot_tie_is_written_with_two_matrices(tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=320)
    text = LanguageModel.from_config(config, tokenizer="bytes")
    model = draw(vlmkit.build(vlmkit.architecture("llava-1.5-tiny").replace(language_model=text)))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    export(model, vlmkit.build_processor(model.config.spec), tmp_path)
    again, report = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert torch.equal(again.lm_head.weight, model.get_input_embeddings().weight)
    assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)
