"""MoE-LLaVA beside what its published class saved and gave: directories in and out (tests/golden/moe_llava/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families.moe_llava import ROW
from families.moe_llava_directory import FOLDER, NOTES, picture, weights, write
from families.record import record
from families.system import patchify, user
from safetensors.torch import load_file

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError

GOLDEN = np.load(FOLDER / "golden.npz")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("moe") / "published")


@pytest.fixture(scope="module")
def loaded(published: Path) -> tuple[VLM, VLMProcessor]:
    return vlmkit.load(published)


def test_logits_the_answer_and_the_balancing_loss_are_upstreams(loaded: tuple[VLM, VLMProcessor]) -> None:
    model, processor = loaded
    batch = processor([[user("What is this?", picture())]], add_generation_prompt=True)
    theirs = patchify(torch.from_numpy(GOLDEN["pixels"][0]), 14)
    assert float((model.encoder.normalise(batch["pixel_values"]) - theirs).abs().max()) < 1e-5
    with torch.no_grad():
        out = model(**batch, labels=batch["input_ids"])
    apart = float((out.logits[0, ::3, ::4] - torch.from_numpy(GOLDEN["logits"])).abs().max())
    assert apart < 1e-5
    mixtures = model.language_model.mixtures
    assert mixtures.last.sum() > 0
    found = model.generate(**batch, max_new_tokens=8, do_sample=False)[0, batch["input_ids"].shape[1] :]
    assert found.tolist() == GOLDEN["answer"].tolist()
    record(ROW, logits=apart, generates=True, layout=True, reference="MoELLaVAPhiForCausalLM")


def test_prompts_are_upstreams(loaded: tuple[VLM, VLMProcessor]) -> None:
    _, processor = loaded
    places = "<image>" * processor.spec.tokens(vlmkit.Size(28, 28))
    asked = [user("What is this?", picture())]
    turns = [{"role": "assistant", "content": "A picture."}, user("Sure?"), {"role": "assistant", "content": "Yes."}]
    for rows, wanted, asks in ((asked, NOTES["prompt"], True), ([*asked, *turns], NOTES["answered"], False)):
        ids = processor([rows], add_generation_prompt=asks)["input_ids"][0]
        assert processor.decode(ids) == wanted.replace("<image>", places)


def test_a_published_directory_is_the_named_tiny_model_with_a_head_without_bias(loaded: tuple[VLM, VLMProcessor]) -> None:
    spec, tiny = loaded[0].config.spec, vlmkit.architecture("moe-llava-tiny")
    assert spec.replace(name="", encoder=tiny.encoder, language_model=tiny.language_model) == tiny.replace(name="")
    assert spec.language_model.experts == tiny.language_model.experts
    same = {"config": tiny.language_model.config, "tokenizer": tiny.language_model.tokenizer, "plain_head": False}
    assert spec.language_model.replace(**same) == tiny.language_model


def test_an_exported_directory_is_the_published_one(loaded: tuple[VLM, VLMProcessor], tmp_path: Path) -> None:
    model, processor = loaded
    export(model, processor, tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    vision = tmp_path / json.loads((tmp_path / "config.json").read_text())["mm_image_tower"] / "model.safetensors"
    held |= {f"model.image_tower.image_tower.{name}": value for name, value in load_file(vision).items()}
    theirs = weights()
    assert held.keys() == theirs.keys()
    assert all(torch.equal(held[name], theirs[name]) for name in theirs)
    assert vision.parent == tmp_path / "openai" / "tiny", "upstream takes a tower for CLIP's by its name"
    said, wanted = json.loads((tmp_path / "config.json").read_text()), NOTES["config"]
    apart = {name for name in wanted if said.get(name) != wanted[name]}
    assert apart <= {"moe", "transformers_version", *NOT_WRITTEN}, {name: (said.get(name), wanted[name]) for name in apart}
    moe = {name: value for name, value in wanted["moe"].items() if name != "train_modules"}
    assert {name: said["moe"][name] for name in moe} == moe
    again, reader = vlmkit.load(tmp_path)
    batch = reader([[user("What is this?", picture())]], add_generation_prompt=True)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    record(ROW, loads=True, exports=True)


NOT_WRITTEN = (
    *("freeze_mm_mlp_adapter", "tune_mm_mlp_adapter", "tokenizer_model_max_length", "tokenizer_padding_side", "qk_layernorm"),
    *("video_global_proj", "video_projector_type", "video_spatial_proj", "video_temproal_proj"),
)
"""How it was trained, and a tower of films that there is not."""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"moe": None}, "config.json.moe: expected a table"),
        ({"moe": NOTES["config"]["moe"] | {"use_residual": True}}, "moe.use_residual: True is not built"),
        ({"moe": NOTES["config"]["moe"] | {"num_experts": [4, 2]}}, r"num_experts: \[4, 2\]"),
        ({"moe": NOTES["config"]["moe"] | {"moe_layers_idx": [0, 9]}}, "9 is beyond the 4 layers"),
        ({"moe": NOTES["config"]["moe"] | {"top_k_experts": 1}}, "experts.top: expected 2 to 4"),
        ({"moe": NOTES["config"]["moe"] | {"eval_capacity_factor": 1.0}}, "pass an expert by in evaluation"),
        ({"moe": NOTES["config"]["moe"] | {"num_experts": [8, 8], "eval_capacity_factor": 4.0}}, "expected .*8, 64, 32"),
        ({"mm_video_tower": "LanguageBind/LanguageBind_Video_merge"}, "mm_video_tower: .* is not built"),
        ({"mm_image_tower": None}, "mm_image_tower: expected a directory or a name"),
        ({"qk_layernorm": True}, "qk_layernorm: True is not built"),
        ({"image_projector_type": "qformer4_36"}, "'qformer4_36' is not built"),
        ({"mm_hidden_size": 33}, "mm_hidden_size: 33 channels"),
        ({"stranger": 3}, "stranger: 3 is no field"),
        ({"intermediate_size": 1 << 30}, "expected .*1073741824"),
    ],
)
def test_what_is_not_built_is_refused_by_its_name(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises((SpecError, OSError), match=words) as error:
        vlmkit.load(write(tmp_path / "other", **changes))
    assert str(tmp_path) in str(error.value)


def test_experts_that_are_not_all_there_are_named(published: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    place = write(tmp_path / "cut")
    held = weights()
    del held["model.layers.2.mlp.deepspeed_moe.experts.deepspeed_experts.1.fc1.weight"]
    save_file(held, place / "model.safetensors")
    with pytest.raises(SpecError, match=r"missing .*layers\.2\.mlp\.experts\.fc1\.weight.*unexpected .*deepspeed_experts\.0\.fc1\.weight"):
        vlmkit.load(place)


def test_a_head_with_bias_has_no_place_and_the_refusal_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"a head without bias.*plain_head=False.*save_pretrained keeps them"):
        export(vlmkit.build("moe-llava-tiny", seed=0), vlmkit.build_processor("moe-llava-tiny"), tmp_path)
    assert not [*tmp_path.iterdir()]
