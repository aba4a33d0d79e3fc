"""Directories of LLaVA's own layout: what is refused, which turns are written, and what is written out."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families.llava_upstream import CASES, KEPT, PICTURES, asked, same, write
from families.system import user
from safetensors.torch import load_file, save_file

import vlmkit
from vlmkit.checkpoints import export, model_type_of
from vlmkit.cli import main
from vlmkit.model import VLM
from vlmkit.preprocess import Size
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError

Loaded = tuple[VLM, VLMProcessor]
every_case = pytest.mark.parametrize("case", CASES)


def test_a_directory_of_the_older_type_is_told_from_transformers(llava_directory: Callable[[str], Path]) -> None:
    assert KEPT["yi_vl"]["config"]["model_type"] == "llava"
    assert model_type_of(str(llava_directory("yi_vl"))) == "llava_llama"


@pytest.mark.parametrize(
    ("case", "changes", "said"),
    [
        ("llava", {"mm_projector_type": "ldpnet"}, r"mm_projector_type: 'ldpnet' is not built; expected 'linear', 'mlp2x_gelu'"),
        ("llava", {"mm_projector_type": "identity"}, r"mm_projector_type: 'identity' is not built"),
        ("llava", {"mm_projector_type": "linear"}, r"unexpected model\.mm_projector\.0\.bias|missing connector\.linear\.bias"),
        (
            "llava",
            {"image_aspect_ratio": "anyres_max_9"},
            r"image_aspect_ratio: 'anyres_max_9' is not built; expected one of 'square', 'pad'",
        ),
        ("llava", {"mm_resampler_type": "qformer"}, r"config\.json\.mm_resampler_type: 'qformer' is not built"),
        ("llava", {"s2": True}, r"config\.json\.s2: True is not built; expected False"),
        ("llava", {"mm_vision_select_feature": "cls"}, r"mm_vision_select_feature: 'cls' is not built; expected 'patch' or 'cls_patch'"),
        ("llava", {"mm_vision_select_layer": "-2"}, r"mm_vision_select_layer: expected a whole number, got '-2'"),
        ("llava", {"mm_vision_select_layer": -9}, r"layer"),
        (
            "llava",
            {"mm_patch_merge_type": "spatial_unpad"},
            r"mm_patch_merge_type: 'spatial_unpad' is not built beside image_aspect_ratio 'pad'",
        ),
        ("llava_v1", {"mm_patch_merge_type": "spatial_unpad"}, r"'spatial_unpad' is not built beside mm_use_im_start_end"),
        ("llava", {"mm_use_im_start_end": True, "vocab_size": 320}, r"special tokens .* are beyond the language model's vocabulary of 320"),
        ("llava", {"mm_hidden_size": 48}, r"mm_hidden_size: 48 channels, but the tower '.*' gives 32"),
        ("llava", {"mm_vision_tower": None}, r"mm_vision_tower: expected a directory or a name on a hub, got None"),
        ("llava", {"mm_vision_tower": "../vit"}, r"mm_vision_tower: '\.\./vit' leads out of the directory"),
        (
            "llava",
            {"mm_vision_tower": "./vit/other"},
            r"the vision tower '\./vit/other' is neither in .* nor elsewhere on this machine; put",
        ),
        ("llava", {"mm_vision_tower": "/nowhere/vit"}, r"the vision tower '/nowhere/vit' is neither in"),
        ("llava_next", {"image_grid_pinpoints": [[28, 50]]}, r"image_grid_pinpoints: expected pairs of width and height .* 28 pixels, got"),
        ("llava_next", {"image_grid_pinpoints": "(1x1),(2x2)"}, r"image_grid_pinpoints: expected pairs .* got '\(1x1\),\(2x2\)'"),
        ("llava_next", {"image_grid_pinpoints": None}, r"image_grid_pinpoints: expected pairs of width and height"),
        ("llava_next", {"mm_patch_merge_type": "spatial"}, r"'spatial' is not built beside image_aspect_ratio 'anyres'"),
        ("llava", {"num_experts": 4}, r"config\.json\.num_experts: 4 is no field of 'llama', nor one about images"),
        ("llava", {"hidden_size": None}, r"config\.json states no hidden_size"),
        ("llava", {"model_type": "llava_mpt"}, r"vlmkit reads no checkpoints of model type 'llava_mpt'"),
    ],
)
def test_a_config_of_what_is_not_built_is_refused(tmp_path: Path, case: str, changes: dict[str, Any], said: str) -> None:
    place = write(tmp_path, case, **changes)
    with pytest.raises(SpecError, match=said) as error:
        vlmkit.load(place)
    assert str(place) in str(error.value)
    assert "\n" not in str(error.value)


def test_pinpoints_spelled_as_python_are_read_and_fields_of_training_say_nothing(tmp_path: Path) -> None:
    points = "[(28, 56), (56, 28), (56, 56), (84, 28), (28, 84)]"
    more = {"image_grid_pinpoints": points, "mm_vision_tower_lr": 2e-6, "mm_resampler_type": None, "freeze_mm_mlp_adapter": False}
    model, _ = vlmkit.load(write(tmp_path, "llava_next", **more))
    assert model.config.spec.policy.grids == ((2, 1), (1, 2), (2, 2), (1, 3), (3, 1))


def test_tiles_without_line_breaks_are_a_run(tmp_path: Path) -> None:
    place = write(tmp_path, "llava_next", mm_patch_merge_type="flat")
    weights = load_file(place / "model.safetensors")
    del weights["model.image_newline"]
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    model, processor = vlmkit.load(place)
    assert processor([asked(0)])["visual_index"].ge(0).sum() == model.config.spec.tokens(Size(40, 52)) == 5 * 4


def test_directories_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    place = write(tmp_path, "llava")
    weights = load_file(place / "model.safetensors")
    gone = weights.pop("model.mm_projector.2.weight")
    save_file(weights | {"stranger": gone}, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(SpecError, match=r"missing connector\.layers\.2\.weight; unexpected stranger"):
        vlmkit.load(place)
    (place / "model.safetensors").unlink()
    torch.save({"model.mm_projector.2.weight": gone}, place / "mm_projector.bin")
    with pytest.raises(SpecError, match=r"holds the projector alone \(mm_projector\.bin\)"):
        vlmkit.load(place)


def test_older_files_of_torch_are_read_and_what_was_kept_beside_weights_is_left_out(
    llava_directory: Callable[[str], Path], llava_loaded: Callable[[str], Loaded], tmp_path: Path
) -> None:
    place = write(tmp_path, "llava_v1", model_type="llava")
    (place / "model.safetensors").unlink()
    weights = load_file(llava_directory("llava_v1") / "model.safetensors")
    further = {f"model.layers.{number}.self_attn.rotary_emb.inv_freq": torch.ones(4) for number in range(2)}
    torch.save(weights | further, place / "pytorch_model.bin")
    model, _ = vlmkit.load(place, dtype="bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config.spec.connector == llava_loaded("llava_v1")[0].config.spec.connector


TURNS = {
    "llava_v1": "curious human",
    "llava": "curious user",
    "llava_next": "curious user",
    "llava_mistral": "[INST]",
    "yi_vl": "### Human:",
}


@every_case
def test_a_chat_template_that_writes_images_wins_over_upstreams_conversation(tmp_path: Path, case: str) -> None:
    place = write(tmp_path, case)
    text = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    (place / "chat_template.jinja").write_text(text)
    own = vlmkit.load(place)[1]
    assert TURNS[case] in own.decode(own([asked(0)])["input_ids"][0])
    place_of_image = own.spec.layout.written[0]
    (place / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] }}: {% for c in m['content'] %}{% if c['type'] == 'image' %}"
        f"{place_of_image}{{% else %}}{{{{ c['text'] }}}}{{% endif %}}{{% endfor %}};{{% endfor %}}"
    )
    model, processor = vlmkit.load(place)
    said = processor.decode(processor([asked(0)])["input_ids"][0])
    assert TURNS[case] not in said
    assert said.endswith("What is this?;")
    export(model, processor, tmp_path / "out", "llava_original")
    again = vlmkit.load(tmp_path / "out")[1]
    assert again([asked(0)])["input_ids"].equal(processor([asked(0)])["input_ids"])


def test_named_tiny_models_are_written_and_read_as_they_are(tmp_path: Path) -> None:
    for name in ("llava-v1-tiny", "yi-vl-tiny", "llava-1.5-tiny", "llava-1.6-tiny"):
        model, processor = vlmkit.build(name, seed=0).eval(), vlmkit.build_processor(name)
        export(model, processor, tmp_path / name, "llava_original")
        again, other = vlmkit.load(tmp_path / name)
        same(dict(again.state_dict()), dict(model.state_dict()))
        for number in range(3):
            one, two = (each([asked(number)]) for each in (processor, other))
            shown = one["visual_index"] < 0
            assert one["input_ids"][shown].equal(two["input_ids"][shown]), (name, number)
            assert one["visual_index"].equal(two["visual_index"])
            assert one["pixel_values"].equal(two["pixel_values"])


ASKED = r"LlavaLlamaForCausalLM of github\.com/haotian-liu/LLaVA can, without transformers: family='llava_original', or --format llava"


def test_what_transformers_has_no_class_of_is_written_where_it_is_asked_for_and_it_is_told_how(
    llava_loaded: Callable[[str], Loaded], tmp_path: Path
) -> None:
    """`begins_anew`: transformers' processor goes on with the words behind an image, where this tokenizer tells the two apart."""
    for name in ("llava-v1-tiny", "yi-vl-tiny"):
        with pytest.raises(SpecError, match=ASKED):
            export(vlmkit.build(name, seed=0), vlmkit.build_processor(name), tmp_path / "out")
    with pytest.raises(SpecError, match=ASKED) as error:
        export(*llava_loaded("llava"), tmp_path / "out")
    assert "LlavaProcessor goes on with the words behind an image" in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("llm2clip-tiny", {}, r"reads one layer of a CLIPVisionModel, but the encoder is Timm"),
        ("llava-1.5-tiny", {"connector": "pixel_shuffle"}, r"has a linear layer, or an mlp .* but not 'pixel_shuffle'"),
        ("llava-1.5-tiny", {"policy": vlmkit.policies["letterbox"](size=28)}, r"policy 'letterbox' has no transformers image processor"),
        ("univa-vl-tiny", {}, r"is over Llama or Mistral, but the language model is 'olmo3'"),
    ],
)
def test_what_the_published_class_cannot_express_is_not_written(tmp_path: Path, name: str, changes: dict[str, Any], said: str) -> None:
    spec = vlmkit.architecture(name).replace(**changes)
    with pytest.raises(SpecError, match=said):
        export(vlmkit.build(spec, device="meta"), vlmkit.build_processor(spec), tmp_path / "out", "llava_original")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_sentencepiece_says_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write(tmp_path, "llava")
    (place / "tokenizer.json").rename(place / "tokenizer.model")
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "sentencepiece" else find(name, *more))
    with pytest.raises(SpecError, match=r"is a sentencepiece model alone \(tokenizer\.model\).*pip install 'vlmkit\[sentencepiece\]'"):
        vlmkit.load(place)


@pytest.mark.parametrize(
    ("legacy", "behind"), [({}, ["▁", "U", "S"]), ({"legacy": True}, ["▁", "U", "S"]), ({"legacy": False}, ["U", "S"])]
)
def test_a_tokenizer_that_does_not_say_whether_it_is_legacy_is(tmp_path: Path, legacy: dict[str, bool], behind: list[str]) -> None:
    """As with transformers 4, by whose slow class of tokenizer.model upstream reads it; compared with that by hand, for each of these."""
    place = write(tmp_path, "llava")
    (place / "tokenizer.model").touch()
    said = json.loads((place / "tokenizer_config.json").read_text())
    (place / "tokenizer_config.json").write_text(json.dumps({name: value for name, value in said.items() if name != "legacy"} | legacy))
    _, processor = vlmkit.load(place)
    tokens = processor.tokenizer.convert_ids_to_tokens(processor([asked(2)])["input_ids"][0].tolist())
    found = tokens.index("</s>") + 1
    assert tokens[found : found + len(behind)] == behind


def test_no_words_of_a_user_stand_where_an_image_does(llava_loaded: Callable[[str], Loaded]) -> None:
    for case in CASES:
        _, processor = llava_loaded(case)
        batch = processor([[user("<unk> <im_patch> <im_start> <image> <image_placeholder>", PICTURES[2])]])
        layout = processor.spec.layout
        place = processor.plain_tokenizer.specials[layout.placeholder]
        ids, where = batch["input_ids"][0], batch["visual_index"][0]
        learned = len(layout.learned) and int((ids == place).sum() - (where >= 0).sum())
        assert int((ids == place).sum()) == int((where >= 0).sum()) + learned


def test_the_architecture_is_told_without_weights(
    llava_directory: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in CASES:
        place = tmp_path / case
        shutil.copytree(llava_directory(case), place)
        (place / "model.safetensors").unlink()
        assert main(["tokens", "--size", "40x52", "--model", str(place)]) == 0
    assert capsys.readouterr().out
