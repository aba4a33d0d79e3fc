"""PaliGemma: answers with their labels as transformers lays them out, words that are locations, and what cannot be exported."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families.paligemma import SYSTEMS
from families.system import Reference, user
from families.tiny import picture

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.spec import Settings

ANSWER = "<loc0012><loc1023> cat ; <seg007>"
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
both = pytest.mark.parametrize("number", range(len(SYSTEMS)), ids=[system.tiny for system in SYSTEMS])


@cache
def reference_of(number: int) -> Reference:
    return SYSTEMS[number].reference()


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    made = []
    for number, system in enumerate(SYSTEMS):
        made.append(tmp_path_factory.mktemp(system.tiny))
        reference_of(number).save(made[-1])
    return made


@pytest.fixture
def small(directories: list[Path]) -> tuple[VLM, VLMProcessor]:
    return vlmkit.load(directories[0])


@both
def test_an_answer_has_the_ids_labels_logits_and_loss_of_a_suffix(number: int, directories: list[Path]) -> None:
    reference = reference_of(number)
    model, processor = vlmkit.load(directories[number])
    image = picture(40, 52)
    theirs = reference.processor(images=image, text="<image>detect cat", suffix=ANSWER, return_tensors="pt")
    ours = processor([user("detect cat", image), {"role": "assistant", "content": ANSWER}])
    for name in ("input_ids", "token_type_ids", "labels", "attention_mask"):
        assert ours[name].tolist() == theirs[name].tolist(), name
    encoder = model.config.spec.encoder
    with torch.no_grad():
        expected = reference.model(**theirs)
        found = model(**{**ours, "pixel_values": reference.patches(theirs, encoder)})
    assert float((found.logits - expected.logits).abs().max()) < 1e-4  # measured 2e-6
    assert float((found.loss - expected.loss).abs()) < 1e-5  # measured 0


def test_a_static_cache_answers_as_the_reference(small: tuple[VLM, VLMProcessor]) -> None:
    """transformers prepares masks for such a cache before the model is called. Its PaliGemma 2 cannot take them (5.23)."""
    reference, (model, processor) = reference_of(0), small
    row = [user("What is this?", picture(40, 52))]
    theirs = reference.inputs(reference.processor, row)
    ours = processor([row]) | {"pixel_values": reference.patches(theirs, model.config.spec.encoder)}
    limit = {"max_new_tokens": 8, "do_sample": False, "cache_implementation": "static"}
    expected = reference.model.generate(**theirs, **limit)[0, theirs["input_ids"].shape[1] :]
    assert model.generate(**ours, **limit)[0, theirs["input_ids"].shape[1] :].tolist() == expected.tolist()


def test_locations_and_codes_of_masks_are_words_and_other_tokens_are_not(small: tuple[VLM, VLMProcessor]) -> None:
    _, processor = small
    ids = processor.tokenizer.get_vocab()
    words = processor.plain_tokenizer.encode("a<loc0012><seg007><image><bos>")
    assert words == [ord("a"), ids["<loc0012>"], ids["<seg007>"], *b"<image><bos>"]


def refused(small: tuple[VLM, VLMProcessor], directory: Path, **parts: Any) -> str:
    """Why a model with other parts cannot be exported."""
    spec = small[0].config.spec.replace(**parts)
    with pytest.raises(vlmkit.SpecError) as caught:
        export(vlmkit.build(spec, seed=0), VLMProcessor(small[1].tokenizer, architecture=spec.to_dict()), directory)
    assert not list(directory.iterdir())
    return str(caught.value)


def test_what_the_class_cannot_express_is_refused(small: tuple[VLM, VLMProcessor], tmp_path: Path) -> None:
    spec = small[0].config.spec
    layout, language_model = spec.layout, spec.language_model
    assert "has siglip with {'layer': -1" in refused(small, tmp_path, encoder=spec.encoder.replace(layer=-2))
    assert "'positions': 'fixed'" in refused(small, tmp_path, encoder=spec.encoder.replace(positions="bicubic"))
    assert "one linear layer with bias" in refused(small, tmp_path, connector="mlp")
    assert "sees the prefix in both directions, but the fusion is 'splice'" in refused(small, tmp_path, fusion="splice")
    assert "PaliGemmaProcessor writes ImagesFirst(" in refused(small, tmp_path, layout=layout.replace(after_image="\n"))
    llama = vlmkit.architecture("llava-1.5-tiny").language_model
    assert "runs gemma and gemma2, but the model type is 'llama'" in refused(small, tmp_path, language_model=llama)
    few = language_model.replace(config=language_model.config | Settings(vocab_size=320))
    assert "more than the language model's vocabulary of 320" in refused(small, tmp_path, language_model=few)


def test_a_model_that_was_never_published_is_exported_and_its_tokenizer_stays_as_it_was(tmp_path: Path) -> None:
    model, processor = vlmkit.build("paligemma-tiny", seed=0), vlmkit.build_processor("paligemma-tiny")
    before = processor.tokenizer.bos_token, len(processor.tokenizer)
    export(model, processor, tmp_path)
    assert (processor.tokenizer.bos_token, len(processor.tokenizer)) == before
    row = [user("What is this?", picture(40, 52))]
    theirs = reference_of(0).inputs(transformers.PaliGemmaProcessor.from_pretrained(tmp_path), row)
    with torch.no_grad():
        expected = transformers.PaliGemmaForConditionalGeneration.from_pretrained(tmp_path)(**theirs).logits
        found = model(**(processor([row]) | {"pixel_values": reference_of(0).patches(theirs, model.config.spec.encoder)})).logits
    assert float((found - expected).abs().max()) < 1e-5  # measured 0


def test_a_chat_template_of_the_directory_is_run(directories: list[Path], tmp_path: Path) -> None:
    for file in directories[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_text(
        "{% for item in messages[0].content %}{{ '<image>' if item.type == 'image' else 'answer en ' + item.text }}{% endfor %}"
    )
    _, processor = vlmkit.load(tmp_path)
    theirs = transformers.AutoProcessor.from_pretrained(tmp_path)
    row = [user("What is this?", picture(40, 52), picture(30, 30))]
    expected = theirs.apply_chat_template(row, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True)
    assert torch.equal(processor(row)["input_ids"], expected["input_ids"])
