"""Prismatic beside what the code that is published with it made of two small directories: prompts, ids, pixels, features, logits, answers;
files in and out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import prismatic
from families.prismatic import ASKED, KEPT, ROW, weights, write
from families.record import record
from families.system import patchify, user
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor
from transformers import CONFIG_MAPPING

import vlmkit
from tests.tiny import apart, assistant
from vlmkit.checkpoints import export
from vlmkit.checkpoints.prismatic import architecture_of
from vlmkit.checkpoints.prismatic_pixels import towers_of
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError

Loaded = tuple[VLM, VLMProcessor]
KINDS = ("fused", "single")
every_kind = pytest.mark.parametrize("kind", KINDS)
every_case = pytest.mark.parametrize(("kind", "number"), [(kind, number) for kind in KINDS for number in (0, 1)])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {kind: write(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}
    for kind, directory in made.items():
        save_file(weights(kind), directory / "model.safetensors", {"format": "pt"})
    return made


@pytest.fixture(scope="module")
def loaded(published: dict[str, Path]) -> dict[str, Loaded]:
    return {kind: vlmkit.load(directory) for kind, directory in published.items()}


def asked(number: int) -> list[dict[str, Any]]:
    seed, size, said = ASKED[number]
    first, *later = said
    turns = [user(first, Image.fromarray(prismatic.picture(seed, *size)))]
    return turns + [assistant(text) if place % 2 == 0 else user(text) for place, text in enumerate(later)]


def of_towers(model: VLM, number: int) -> list[Tensor]:
    """What PIL makes of a picture by the published transforms, (3, S, S) for each tower."""
    seed, size, _ = ASKED[number]
    photo = Image.fromarray(prismatic.picture(seed, *size))
    found = []
    for tower in model.config.spec.towers:
        side, encoder = tower.policy.size, tower.encoder
        found.append(Compose([Resize((side, side), InterpolationMode.BICUBIC), ToTensor(), Normalize(encoder.mean, encoder.std)])(photo))
    return found


def batch_of(loaded: Loaded, number: int) -> dict[str, Any]:
    """vlmkit's batch over PIL's pixels: logits then differ by arithmetic alone."""
    model, processor = loaded
    batch = dict(processor([asked(number)], add_generation_prompt=True))
    for place, (tower, image) in enumerate(zip(model.config.spec.towers, of_towers(model, number), strict=True)):
        name = f"pixel_values_{place}" if place else "pixel_values"
        patches = patchify(image, tower.encoder.patch_size)
        assert patches.shape == batch[name].shape
        batch[name] = patches
    return batch


@every_case
def test_ids_features_logits_and_the_greedy_answer_are_upstreams(loaded: dict[str, Loaded], kind: str, number: int) -> None:
    """Logits measured 7e-6, of size 3; features 4e-6, of size 2."""
    model, processor = loaded[kind]
    kept = KEPT[kind]["cases"][number]
    batch = batch_of(loaded[kind], number)
    ids = batch["input_ids"][0].tolist()
    pad = processor.tokenizer.pad_token_id
    assert [token for token in ids if token != pad] == kept["ids"]
    assert ids[1 : 1 + ids.count(pad)] == [pad] * ids.count(pad), "patches stand behind the first token"
    pixels = [batch[name] for name in ("pixel_values", "pixel_values_1") if name in batch]
    with torch.no_grad():
        features = model.connector(*(tower(given, batch["grids"]) for tower, given in zip(model.towers, pixels, strict=True))).tokens
        assert apart(features[::5, ::4], torch.tensor(kept["features"])) < 1e-4
        worst = apart(model(**batch).logits[0, -1, ::4], torch.tensor(kept["logits"]))
    assert worst < 1e-4
    assert model.generate(**batch, max_new_tokens=8, do_sample=False)[0, len(ids) :].tolist() == kept["new"]
    if (kind, number) == ("fused", 1):
        record(ROW, layout=True, generates=True, logits=worst, reference="PrismaticForConditionalGeneration")


@every_kind
def test_without_a_picture_logits_are_upstreams(loaded: dict[str, Loaded], kind: str) -> None:
    model, processor = loaded[kind]
    kept = KEPT[kind]["cases"][-1]
    batch = processor([[user("Who are you?")]], add_generation_prompt=True)
    assert batch["input_ids"][0].tolist() == kept["ids"]
    with torch.no_grad():
        assert apart(model(**batch).logits[0, -1, ::4], torch.tensor(kept["logits"])) < 1e-4


@every_case
def test_pixels_are_what_upstreams_processor_gave(loaded: dict[str, Loaded], kind: str, number: int) -> None:
    kept = KEPT[kind]["cases"][number]
    whole = torch.cat(of_towers(loaded[kind][0], number))
    assert list(whole.shape) == kept["pixel_shape"]
    assert apart(whole.flatten()[::211], torch.tensor(kept["pixels"])) < 1e-4


@every_kind
def test_the_picture_moves_the_logits(loaded: dict[str, Loaded], kind: str) -> None:
    model, processor = loaded[kind]
    one, other = (
        processor([[user("What?", Image.fromarray(prismatic.picture(seed, 60, 60)))]], add_generation_prompt=True) for seed in (3, 4)
    )
    with torch.no_grad():
        assert apart(model(**one).logits, model(**other).logits) > 1e-2


@every_kind
def test_what_is_exported_are_the_published_files(published: dict[str, Path], loaded: dict[str, Loaded], kind: str, tmp_path: Path) -> None:
    model, processor = loaded[kind]
    export(model, processor, tmp_path)
    there, written = load_file(published[kind] / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert there.keys() == written.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in there.items())
    said = json.loads((tmp_path / "config.json").read_text())
    free = {"text_config", "transformers_version", "hf_llm_id", "vision_backbone_id"}
    assert {name: said[name] for name in KEPT[kind]["config"] if name not in free} == {
        name: value for name, value in KEPT[kind]["config"].items() if name not in free
    }
    assert said["text_config"].items() >= KEPT[kind]["config"]["text_config"].items()
    pixels = json.loads((tmp_path / "preprocessor_config.json").read_text())
    kept = dict(KEPT[kind]["preprocessor"])
    normalised, wanted = (each.pop("tvf_normalize_params") for each in (pixels, kept))
    assert {name: pixels[name] for name in kept} == kept
    for one, other in zip(normalised, wanted, strict=True):
        assert np.allclose([one["mean"], one["std"]], [other["mean"], other["std"]], atol=1e-7)
    again, its_processor = vlmkit.load(tmp_path)
    assert again.config.spec == model.config.spec
    assert its_processor.tokenizer.backend_tokenizer.to_str() == processor.tokenizer.backend_tokenizer.to_str()
    assert all(torch.equal(one, other) for one, other in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    record(ROW, loads=True, exports=True)


def test_weights_that_nobody_reads_are_kept_and_do_not_learn(loaded: dict[str, Loaded]) -> None:
    model, _ = loaded["fused"]
    unread = {name: parameter for name, parameter in model.named_parameters() if ".unread." in name}
    assert {re.sub(r"^encoder\.(\d)\.unread\.(blocks\.\d+|\w+)\..*", r"\1 \2", name) for name in unread} == {
        *("0 blocks.11", "0 norm", "1 blocks.8", "1 norm", "1 attn_pool"),
    }
    assert not any(parameter.requires_grad for parameter in unread.values())


def test_the_mean_that_upstream_uses_is_not_always_the_one_that_it_states(tmp_path: Path) -> None:
    """A converter that ran in bfloat16 left other numbers in `tvf_normalize_params`, which upstream's processor reads back."""
    told = KEPT["fused"]["preprocessor"]["tvf_normalize_params"]
    rounded = [{"inplace": False} | {name: torch.tensor(each[name]).bfloat16().tolist() for name in ("mean", "std")} for each in told]
    directory = write(tmp_path, "fused", {"tvf_normalize_params": rounded})
    first, second = towers_of(KEPT["fused"]["config"], json.loads((directory / "preprocessor_config.json").read_text()))
    assert first.encoder.mean == (0.484375, 0.455078125, 0.40625)
    assert second.encoder.mean == (0.5, 0.5, 0.5)
    first, _ = towers_of(KEPT["fused"]["config"], KEPT["fused"]["preprocessor"])
    assert first.encoder.mean == (0.485, 0.456, 0.406), "what float32 rounds is as it is stated"


SIZES = {"dinosiglip-vit-so-384px": ("prismatic-dinosiglip-7b", 384), "clip-vit-l-336px": ("", 336)}
IDS = {
    "dinosiglip-vit-so-384px": ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_384"],
    "clip-vit-l-336px": ["vit_large_patch14_clip_336.openai"],
}


def said_of(backbone: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and preprocessor_config.json of a published backbone over Llama 2, as upstream's tables have it."""
    names, size = IDS[backbone], SIZES[backbone][1]
    text = {"model_type": "llama", "vocab_size": 32064, "pad_token_id": 32000, "torch_dtype": "bfloat16"}
    config = KEPT["fused"]["config"] | {
        "vision_backbone_id": backbone,
        "timm_model_ids": names,
        "timm_override_act_layers": ["quick_gelu" if "_clip_" in name else None for name in names],
        "image_sizes": [size] * len(names),
        "use_fused_vision_backbone": len(names) > 1,
        "pad_token_id": 32000,
        "text_config": text,
    }
    kept = KEPT["fused"]["preprocessor"]
    pixels = kept | {"input_sizes": [[3, size, size]] * len(names)}
    pixels |= {name: kept[name][: len(names)] for name in ("interpolations", "means", "stds", "tvf_normalize_params")}
    return config, pixels


class Llama:
    """Of Llama's tokenizer, what a config is held against."""

    def convert_ids_to_tokens(self, number: int) -> str:
        return "<PAD>" if number == 32000 else "word"

    def __len__(self) -> int:
        return 32001


def test_a_published_config_is_the_named_model() -> None:
    """But for the epsilon and the longest sequence, which the published config leaves at LlamaConfig's own."""
    found, named = architecture_of(*said_of("dinosiglip-vit-so-384px"), Llama()), vlmkit.architecture("prismatic-dinosiglip-7b")
    assert found.parameters() == named.parameters()
    for ours, theirs in zip(found.towers, named.towers, strict=True):
        assert ours.policy == theirs.policy
        assert ours.encoder.replace(checkpoint=None) == theirs.encoder.replace(checkpoint=None)
    assert (found.connector, found.layout, found.fusion) == (named.connector, named.layout, named.fusion)
    ours, theirs = (one.language_model.transformers_config() for one in (found, named))
    assert (ours.rms_norm_eps, theirs.rms_norm_eps) == (1e-6, 1e-5)
    assert (ours.hidden_size, ours.num_hidden_layers) == (theirs.hidden_size, theirs.num_hidden_layers)


def test_openais_clip_has_its_own_activation_by_its_own_name() -> None:
    found = architecture_of(*said_of("clip-vit-l-336px"), Llama())
    assert found.encoder.model == "vit_large_patch14_clip_quickgelu_336"
    assert found.encoder.checkpoint == "vit_large_patch14_clip_quickgelu_336.openai"
    assert found.connector == vlmkit.connectors["mlp"](depth=2)


def test_configs_of_language_models_have_the_defaults_that_upstreams_transformers_had() -> None:
    """Published configs state what differs from transformers 4.40.1's defaults alone."""
    for name, wanted in {
        "llama": (4096, 11008, 32, 32, 32, 2048, 1e-6, 10000.0, None),
        "mistral": (4096, 14336, 32, 32, 8, 131072, 1e-6, 10000.0, 4096),
    }.items():
        made: Any = CONFIG_MAPPING[name]()
        sizes = (made.hidden_size, made.intermediate_size, made.num_hidden_layers, made.num_attention_heads, made.num_key_value_heads)
        rest = (made.max_position_embeddings, made.rms_norm_eps, made.rope_parameters["rope_theta"], getattr(made, "sliding_window", None))
        assert (*sizes, *rest) == wanted


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_resize_strategy": "letterbox"}, r"config\.json\.image_resize_strategy: 'letterbox' is not built; expected 'resize-naive'"),
        ({"llm_backbone_id": "phi-2-3b"}, r"llm_backbone_id: 'phi-2-3b' is not built; expected one of llama2-7b-pure"),
        ({"timm_override_act_layers": ["relu", None]}, r"timm_override_act_layers: 'relu' of vit_small_patch14_reg4_dinov2 is not built"),
        ({"use_fused_vision_backbone": False}, r"use_fused_vision_backbone is False, but timm_model_ids are"),
        ({"image_sizes": [48]}, r"image_sizes: expected an entry for each of timm_model_ids"),
        ({"image_sizes": [48, 64]}, r"tower test_vit3 sees \[3, 48, 48\] by 'bicubic'; expected \[3, 64, 64\]"),
        ({"timm_model_ids": ["vit_smal_patch14_reg4_dinov2", "test_vit3"]}, r"unknown timm model 'vit_smal_patch14_reg4_dinov2'"),
        ({"pad_token_id": 9999}, r"pad_token_id: 9999 is no token of the tokenizer"),
        ({"stranger": 1}, r"config\.json\.stranger: 1 is not built"),
    ],
)
def test_a_config_of_what_is_not_built_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        vlmkit.load(write(tmp_path, "fused", **changes))


def test_missing_and_unexpected_weights_are_listed(tmp_path: Path) -> None:
    found = weights("single")
    del found["vision_backbone.featurizer.blocks.8.ls1.scale_factor"]
    save_file(found | {"stranger.weight": torch.zeros(1)}, write(tmp_path, "single") / "model.safetensors")
    with pytest.raises(SpecError, match=r"missing encoder\.unread\.blocks\.8\.ls1\.gamma; unexpected stranger\.weight"):
        vlmkit.load(tmp_path)


def test_half_precision_stays_half_precision(loaded: dict[str, Loaded], published: dict[str, Path], tmp_path: Path) -> None:
    model, processor = vlmkit.load(published["single"], dtype="bfloat16")
    export(model, processor, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert {parameter.dtype for parameter in vlmkit.load(tmp_path)[0].parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder": {"keep_unused": False}}, r"use keep_unused=True"),
        ({"encoder": {"layer": -3}}, r"has Squash.*layer=-2.*but these are.*layer=-3"),
        ({"policy": {"resample": "lanczos"}}, r"one of bilinear, bicubic, but the policy's filter is 'lanczos'"),
        ({"connector": {"bias": False}}, r"has the connector Mlp\(.*bias=True.*, but this one is Mlp\(.*bias=False"),
    ],
)
def test_what_upstream_does_not_make_is_not_written(
    loaded: dict[str, Loaded], change: dict[str, dict[str, Any]], said: str, tmp_path: Path
) -> None:
    _, processor = loaded["single"]
    spec = processor.spec
    other = spec.replace(**{part: getattr(spec, part).replace(**fields) for part, fields in change.items()})
    with pytest.raises(SpecError, match=said):
        export(vlmkit.build(other, seed=0), vlmkit.build_processor(other, tokenizer=processor.tokenizer), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_of_prismatics_own_training_code_is_told_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": {"model_id": "prism-dinosiglip+7b"}}))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "latest-checkpoint.pt").write_bytes(b"")
    with pytest.raises(SpecError, match=r"without towers and tokenizer; scripts/extern/convert_prismatic_weights_to_hf\.py"):
        vlmkit.load(tmp_path)
