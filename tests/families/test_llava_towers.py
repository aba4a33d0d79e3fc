"""The vision tower of a directory of LLaVA's own layout: where it is found, which weights win, where it is written."""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import llm2clip
from families.llava_upstream import KEPT, VIT, asked, patches, same, write
from families.record import record
from safetensors.torch import load_file, save_file

import vlmkit
from tests.memory import peak_memory
from tests.tiny import apart
from vlmkit.checkpoints import export
from vlmkit.checkpoints.llava_original_tower import KNOWN, encoder_of, tower_at, tower_of, tower_weights
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError

Loaded = tuple[VLM, VLMProcessor]


def test_the_tower_in_the_directory_comes_before_the_one_that_is_named(
    llava_directory: Callable[[str], Path], llava_loaded: Callable[[str], Loaded]
) -> None:
    """LLaVA-1.6 trains its tower on, and saves it in the language model's files."""
    place, name = llava_directory("llava_next"), "vision_model.embeddings.patch_embedding.weight"
    inside = load_file(place / "model.safetensors")[f"model.vision_tower.vision_tower.{name}"]
    assert not inside.equal(load_file(place / VIT / "model.safetensors")[name])
    assert llava_loaded("llava_next")[0].encoder.embeddings.patch_embedding.weight.equal(inside)
    assert llava_loaded("llava")[0].encoder.embeddings.patch_embedding.weight.equal(
        load_file(llava_directory("llava") / VIT / "model.safetensors")[name]
    )


def test_a_tower_is_found_by_its_whole_path_and_from_where_one_stands(
    llava_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = llava_directory("yi_vl") / VIT
    by_path = vlmkit.load(write(tmp_path / "one", "yi_vl", mm_vision_tower=str(elsewhere)))[0]
    assert by_path.config.spec.encoder.checkpoint == str(elsewhere)
    monkeypatch.chdir(elsewhere.parent)
    from_here = vlmkit.load(write(tmp_path / "two", "yi_vl", mm_vision_tower=elsewhere.name))[0]
    assert from_here.config.spec.encoder.checkpoint == str(elsewhere)


def test_the_vision_half_of_a_clip_is_a_tower_and_its_code_is_not_run(tmp_path: Path) -> None:
    """As LLM2CLIP's OpenAI tower is published: a class of its own over CLIP's config, words beside."""
    place = write(tmp_path, "llava")
    vision = json.loads((place / VIT / "config.json").read_text())
    whole = {"model_type": "clip", "architectures": ["LLM2CLIPModel"], "auto_map": {"AutoModel": "modeling_llm2clip.LLM2CLIPModel"}}
    (place / VIT / "config.json").write_text(json.dumps(whole | {"vision_config": vision, "text_config": {}}))
    (place / VIT / "modeling_llm2clip.py").write_text("raise AssertionError")
    weights = load_file(place / VIT / "model.safetensors")
    save_file(weights | {"logit_scale": torch.ones(())}, place / VIT / "model.safetensors", {"format": "pt"})
    model, processor = vlmkit.load(place)
    batch = processor([asked(0)], add_generation_prompt=True)
    batch["pixel_values"] = patches("llava", asked(0))
    with torch.no_grad():
        worst = apart(model(**batch).logits[0, -1, ::4], torch.tensor(KEPT["llava"]["cases"][0]["logits"]))
    assert worst < 1e-4
    export(model, processor, tmp_path / "out", "llava_original")
    same(dict(vlmkit.load(tmp_path / "out")[0].state_dict()), dict(model.state_dict()))
    record(llm2clip.ROW, loads=True, exports=True)


@pytest.mark.parametrize("name", ["llava-v1-7b", "llava-1.5-7b", "llm2clip-openai-l-336-7b"])
def test_a_published_tower_is_named_and_its_weights_lie_beside(name: str) -> None:
    spec = vlmkit.architecture(name)
    tower = tower_of(spec)
    assert (tower.place, tower.published) == (spec.encoder.checkpoint, spec.encoder.checkpoint)  # type: ignore[attr-defined]
    found = tower_at("/nowhere", tower.place)
    assert encoder_of({"mm_vision_select_layer": -2}, found) == spec.encoder


def test_a_published_towers_weights_are_written_beside_the_others_and_no_hub_is_asked(
    llava_loaded: Callable[[str], Loaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = llava_loaded("llava_next")
    spec = model.config.spec.replace(encoder=model.config.spec.encoder.replace(checkpoint="someone/clip"))
    monkeypatch.setitem(KNOWN, "someone/clip", spec.encoder)
    named = vlmkit.build(spec, seed=0)
    named.load_state_dict(model.state_dict())
    export(named, VLMProcessor(processor.tokenizer, architecture=spec.to_dict()), tmp_path, "llava_original")
    said = json.loads((tmp_path / "config.json").read_text())
    assert (said["mm_vision_tower"], said["unfreeze_mm_vision_tower"]) == ("someone/clip", True)
    assert not (tmp_path / "vit").exists()
    assert load_file(tmp_path / "model.safetensors").keys() == KEPT["llava_next"]["shapes"].keys()
    again, _ = vlmkit.load(tmp_path)
    assert again.config.spec == spec
    same(dict(again.state_dict()), dict(model.state_dict()))


def test_a_tower_that_no_hub_gives_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    place = write(tmp_path, "llava", mm_vision_tower="someone/clip")
    with pytest.raises(
        SpecError, match=r"mm_vision_tower: of 'someone/clip', config\.json and preprocessor_config\.json cannot be read: .*; name"
    ):
        vlmkit.load(place)
    tiny = vlmkit.architecture("llava-1.5-tiny").encoder.replace(checkpoint="someone/clip")
    with pytest.raises(SpecError, match=r"holds no weights of its vision tower, and those of 'someone/clip', .* cannot be had: .*; fetch"):
        tower_weights(str(place), tiny)


@pytest.mark.parametrize("field", ["hidden_size", "intermediate_size", "image_size", "num_attention_heads", "projection_dim"])
def test_a_tower_that_is_said_larger_than_its_files_costs_little(tmp_path: Path, field: str) -> None:
    place = write(tmp_path, "llava")
    said = json.loads((place / VIT / "config.json").read_text())
    (place / VIT / "config.json").write_text(json.dumps(said | {field: 4 * 10**7}))
    with peak_memory() as grown:
        if field == "projection_dim":  # of words, of which nothing is read
            vlmkit.load(place)
        else:
            with pytest.raises(SpecError, match=str(place)) as error:
                vlmkit.load(place)
            assert "\n" not in str(error.value)
    assert grown() < 300 << 20


def test_a_tower_within_a_repository_of_a_hub_is_fetched_too(
    llava_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hub that is asked here, there was none: files are copied as they would come."""
    source = llava_directory("yi_vl")

    def fetched(name: str, *, allow_patterns: list[str], ignore_patterns: list[str] | None = None, **_: Any) -> str:
        for path in filter(Path.is_file, source.rglob("*")):
            relative = path.relative_to(source).as_posix()
            within = any(fnmatch.fnmatch(relative, each) for each in allow_patterns)
            if within and not any(fnmatch.fnmatch(relative, each) for each in ignore_patterns or ()):
                (tmp_path / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, tmp_path / relative)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    monkeypatch.setattr("vlmkit.checkpoint_directory.refuse_unreachable", lambda *_: None)
    assert vlmkit.load("01-ai/Yi-VL-tiny")[0].config.spec.encoder.checkpoint == str(tmp_path / VIT)
