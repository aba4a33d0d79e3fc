"""NVLM-D's files: what is read of a published directory and written as one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import nvlm
from families.record import record
from families.system import user
from families.tiny import picture
from safetensors.torch import load_file, save_file

import vlmkit
from tests.tiny import draw
from vlmkit.checkpoints import export
from vlmkit.checkpoints.nvlm import architecture_of, to_theirs
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError

Loaded = tuple[VLM, VLMProcessor]


@pytest.fixture(scope="module")
def made() -> Loaded:
    model = vlmkit.build("nvlm-d-tiny", seed=0).eval()
    draw(model)
    return model, vlmkit.build_processor("nvlm-d-tiny", tokenizer=nvlm.PARTS.tokenizer())


@pytest.fixture(scope="module")
def published(made: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("nvlm")
    export(*made, directory)
    return directory


def said(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return found


def test_a_directory_is_read_back_as_it_was(made: Loaded, published: Path) -> None:
    model, processor = made
    again, reader = vlmkit.load(published)
    assert model.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    row = [user("What is this?", picture(50, 100))]
    ours, theirs = processor([row]), reader([row])
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    with torch.no_grad():
        assert torch.equal(model(**ours).logits, again(**theirs).logits)
    record(nvlm.D, loads=True, exports=True)


def test_what_is_written_has_the_published_names_and_the_added_heads(published: Path) -> None:
    weights = load_file(published / "model.safetensors")
    layer = "vision_model.encoder.layers.1."
    shapes = {name.removeprefix(layer): tuple(value.shape) for name, value in weights.items() if name.startswith(layer)}
    channels = (4 + 7) * 8
    assert shapes == {
        "attn.qkv.weight": (3 * channels, 32),
        "attn.q_norm.weight": (channels,),
        "attn.k_norm.weight": (channels,),
        "attn.proj.weight": (32, channels),
        "attn.proj.bias": (32,),
        "mlp.fc1.weight": (64, 32),
        "mlp.fc1.bias": (64,),
        "mlp.fc2.weight": (32, 64),
        "mlp.fc2.bias": (32,),
        "norm1.weight": (32,),
        "norm2.weight": (32,),
        "ls1": (32,),
        "ls2": (32,),
    }
    rest = {name for name in weights if not name.startswith(("vision_model.encoder.", "language_model.model.layers."))}
    assert rest == {
        *(f"vision_model.embeddings.{name}" for name in ("class_embedding", "position_embedding")),
        *(f"vision_model.embeddings.patch_embedding.{name}" for name in ("weight", "bias")),
        *(f"mlp1.{name}" for name in ("0.weight", "0.bias", "1.weight", "3.weight")),
        *(f"language_model.{name}.weight" for name in ("lm_head", "model.embed_tokens", "model.norm")),
    }


def test_published_sizes() -> None:
    """79.4 billion values with the added heads, as the hub's card counts them."""
    with torch.device("meta"):
        model = vlmkit.build("nvlm-d-72b", device="meta")
    weights = to_theirs(model.state_dict(), model.config.spec)
    added = 45 * (4 * 7 * 128 * 3200 + 2 * 7 * 128)
    assert sum(value.numel() for value in weights.values()) == 78_863_416_704 + added
    assert weights["vision_model.encoder.layers.44.attn.qkv.weight"].shape == (3 * 32 * 128, 3200)
    assert len(weights) == 45 * 13 + 4 + 4 + 80 * 12 + 3


def test_the_published_config_is_read() -> None:
    """Of nvidia/NVLM-D-72B, as copies of it state it, what changes nothing left out."""
    config = said_by_nvidia()
    arch = vlmkit.architecture("nvlm-d-72b")
    found = architecture_of(config, nvlm.PARTS.tokenizer())
    assert found.encoder == arch.encoder.replace(checkpoint=None)
    for part in ("policy", "connector", "layout", "fusion"):
        assert getattr(found, part) == getattr(arch, part)
    assert found.parameters() == arch.parameters()


def said_by_nvidia() -> dict[str, Any]:
    return {
        "model_type": "NVLM_D",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": 448,
        "max_dynamic_patch": 6,
        "min_dynamic_patch": 1,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "chatml",
        "use_thumbnail": True,
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "llama",
            "bos_token_id": 151643,
            "eos_token_id": 151645,
            "hidden_size": 8192,
            "intermediate_size": 29568,
            "max_position_embeddings": 32768,
            "num_attention_heads": 64,
            "num_hidden_layers": 80,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"factor": 3.0, "type": "dynamic"},
            "rope_theta": 1000000.0,
            "tie_word_embeddings": False,
            "vocab_size": 152064,
        },
        "vision_config": {
            "hidden_act": "gelu",
            "hidden_size": 3200,
            "image_size": 448,
            "intermediate_size": 12800,
            "layer_norm_eps": 1e-06,
            "model_type": "intern_vit_6b",
            "norm_type": "rms_norm",
            "num_attention_heads": 25,
            "num_channels": 3,
            "num_hidden_layers": 45,
            "patch_size": 14,
            "qk_normalization": True,
            "qkv_bias": False,
        },
    }


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ps_version": "v1"}, "ps_version"),
        ({"template": "other"}, "template"),
        ({"stranger": 1}, "stranger"),
        ({"force_image_size": 224}, "force_image_size"),
        ({"downsample_ratio": 0.4}, "downsample_ratio"),
        ({"vision_config": {"norm_type": "layer_norm"}}, r"vision_config\.norm_type"),
        ({"vision_config": {"qkv_bias": True}}, r"vision_config\.qkv_bias"),
        ({"llm_config": {"architectures": ["LlamaForCausalLM"]}}, "LlamaForCausalLM"),
        ({"llm_config": {"rope_scaling": {"type": "linear", "factor": 2.0}}}, "rope_scaling"),
    ],
)
def test_a_config_of_what_is_not_built_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    config = copy.deepcopy(said_by_nvidia())
    for name, value in changes.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    with pytest.raises(SpecError, match=named):
        architecture_of(config, nvlm.PARTS.tokenizer())


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"fusion": "prefix"}, "fusion"),
        ({"policy": vlmkit.policies["squash"](size=56)}, "tiles"),
        ({"connector": vlmkit.connectors["pixel_shuffle"]()}, "connector"),
        ({"connector": "mlp"}, "pixel_shuffle"),
    ],
)
def test_what_the_class_cannot_express_is_refused(made: Loaded, part: dict[str, Any], named: str) -> None:
    from vlmkit.checkpoints.nvlm import FAMILY

    model, processor = made
    with pytest.raises(SpecError, match=rf"NVLM_D_Model .*{named}"):
        FAMILY.config(model.config.spec.replace(**part), processor)


def test_missing_and_unexpected_keys_are_listed(published: Path, tmp_path: Path) -> None:
    for file in published.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(published / "model.safetensors")
    del weights["mlp1.3.weight"]
    save_file({**weights, "stranger.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(SpecError, match=r"(?s)missing connector\.inner\.layers\.3\.weight.*unexpected stranger\.weight"):
        vlmkit.load(tmp_path)
    assert said(tmp_path)["auto_map"]["AutoModel"].startswith("nvidia/NVLM-D-72B--")
