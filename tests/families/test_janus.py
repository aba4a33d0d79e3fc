"""Janus-Pro: what is not built is said and nothing else is lost; answers, tied embeddings, and what cannot be exported."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families.janus import SYSTEMS, UNREAD
from families.system import Reference, user
from families.tiny import picture
from safetensors.torch import load_file, save_file

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor

pytestmark = pytest.mark.filterwarnings("ignore:.*vlmkit does not build:UserWarning")
ROW = [user("What is this?", picture(40, 52))]


@cache
def reference() -> Reference:
    return SYSTEMS[0].reference()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("janus")
    reference().save(made)
    return made


@pytest.fixture(scope="module")
def small(directory: Path) -> tuple[VLM, VLMProcessor]:
    return vlmkit.load(directory)


def logits(small: tuple[VLM, VLMProcessor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's and vlmkit's."""
    theirs = reference().inputs(reference().processor, ROW)
    ours = small[1]([ROW]) | {"pixel_values": reference().patches(theirs, small[0].config.spec.encoder)}
    with torch.no_grad():
        return reference().model(**theirs).logits, small[0](**ours).logits


def test_loading_says_what_is_not_read(directory: Path) -> None:
    with pytest.warns(UserWarning, match=r"model\.vqmodel \(247,243 values\).*model\.generation_head.* are not read"):
        vlmkit.load(directory)


def test_an_exported_directory_holds_what_vlmkit_builds_and_says_what_it_lacks(small: tuple[VLM, VLMProcessor], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"without weights of model\.vqmodel, .*which vlmkit does not build"):
        export(*small, tmp_path)
    kept = {name for name in reference().model.state_dict() if not name.startswith(UNREAD)}
    assert load_file(tmp_path / "model.safetensors").keys() == kept
    _, report = transformers.JanusForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"]
    assert all(name.startswith(UNREAD) for name in report["missing_keys"])
    again, _ = vlmkit.load(tmp_path)
    assert again.config.spec == small[0].config.spec


def test_keys_of_the_understanding_side_are_needed_and_others_are_not(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.aligner.fc1.weight"], weights["model.generation_head.proj_out.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(vlmkit.SpecError, match=r"is not complete: missing model\.aligner\.fc1\.weight$"):
        vlmkit.load(tmp_path)


def test_two_embeddings_stay_two_where_the_config_is_silent(directory: Path, tmp_path: Path) -> None:
    """As in the published directories: their class ties by default, their weights are two."""
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["tie_word_embeddings"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = vlmkit.load(tmp_path)
    assert loaded[0].config.spec.language_model.config["tie_word_embeddings"] is False
    theirs, ours = logits(loaded)
    assert float((theirs - ours).abs().max()) < 1e-5  # measured 1e-6


def test_one_embedding_is_one(tmp_path: Path) -> None:
    model = SYSTEMS[0].reference().model
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path)
    reference().processor.save_pretrained(tmp_path)
    loaded, _ = vlmkit.load(tmp_path)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


def test_the_guidance_of_drawn_images_does_not_guide_words(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "generation_config.json").read_text()) | {"guidance_scale": 5}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    model, processor = vlmkit.load(tmp_path)
    theirs = reference().inputs(reference().processor, ROW)
    ours = processor([ROW]) | {"pixel_values": reference().patches(theirs, model.config.spec.encoder)}
    limit = {"max_new_tokens": 8, "do_sample": False}
    expected = reference().model.generate(**theirs, **limit)
    assert model.generate(**ours, **limit).tolist() == expected.tolist()


def test_a_question_after_an_answer_and_images_between_words_have_the_references_ids(small: tuple[VLM, VLMProcessor]) -> None:
    first, second, third = (picture(*size, seed) for seed, size in enumerate(((40, 52), (64, 33), (28, 90))))
    between: list[dict[str, Any]] = [{"type": "text", "text": "Is"}, {"type": "image", "image": third}]
    rows = [
        user("What is this?", first, second),
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        {"role": "user", "content": between},
    ]
    theirs = reference().inputs(reference().processor, rows)
    assert small[1]([rows], add_generation_prompt=True)["input_ids"].tolist() == theirs["input_ids"].tolist()


def refused(small: tuple[VLM, VLMProcessor], directory: Path, **parts: Any) -> str:
    """Why a model with other parts cannot be exported."""
    spec = small[0].config.spec.replace(**parts)
    with pytest.raises(vlmkit.SpecError) as caught:
        export(vlmkit.build(spec, seed=0), VLMProcessor(small[1].tokenizer, architecture=spec.to_dict()), directory)
    assert not list(directory.iterdir())
    return str(caught.value)


def test_what_the_class_cannot_express_is_refused(small: tuple[VLM, VLMProcessor], tmp_path: Path) -> None:
    spec = small[0].config.spec
    assert "has siglip with {'layer': -1" in refused(small, tmp_path, encoder=spec.encoder.replace(layer=-2))
    assert "JanusForConditionalGeneration has a plain mlp" in refused(small, tmp_path, connector="linear")
    assert "splices bracketed_lines, but the layout is 'bracketed_lines' and the fusion 'prefix'" in refused(
        small, tmp_path, fusion="prefix"
    )
    assert "fills up with the mean (0.5, 0.5, 0.5)" in refused(small, tmp_path, policy=spec.policy.replace(fill=(0, 0, 90)))
    assert "letterboxes whole squares" in refused(small, tmp_path, policy=spec.policy.replace(size=30, view=28))
    assert "writes '\\n' as well" in refused(small, tmp_path, layout=spec.layout.replace(after_image="\n"))
    gemma = vlmkit.architecture("paligemma-tiny").language_model
    assert "runs llama, but the model type is 'gemma'" in refused(small, tmp_path, language_model=gemma)


def test_a_model_that_was_never_published_is_exported_and_its_tokenizer_stays_as_it_was(tmp_path: Path) -> None:
    model, processor = vlmkit.build("janus-tiny", seed=0), vlmkit.build_processor("janus-tiny")
    export(model, processor, tmp_path)
    assert not hasattr(processor.tokenizer, "boi_token")
    _, again = vlmkit.load(tmp_path)
    assert again([ROW])["input_ids"].tolist() == processor([ROW])["input_ids"].tolist()
