"""What is saved is what is loaded, bit for bit; what cannot be loaded is named."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import vlmkit
from tests.tiny import CONVERSATIONS, LANGUAGE_MODELS, architecture, model, shared
from vlmkit.config import VLMConfig
from vlmkit.model import VLM
from vlmkit.spec import SpecError


def identical(first: VLM, second: VLM) -> bool:
    """Parameters, and what is computed beside them (rotary frequencies, scales) and never saved."""
    ours, theirs = ({**dict(built.named_parameters()), **dict(built.named_buffers())} for built in (first, second))
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype and not theirs[name].is_meta for name in ours
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved")
    built, processor = shared()
    built.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_every_language_model_comes_back_bit_for_bit_and_tied_weights_stay_tied(language: str, tmp_path: Path) -> None:
    built = model(architecture(language=language))
    built.save_pretrained(tmp_path)
    again = VLM.from_pretrained(tmp_path)
    assert identical(built, again)
    batch = vlmkit.build_processor(built.spec)(CONVERSATIONS)
    assert torch.equal(again(**batch).logits, built(**batch).logits)
    tied = language != "olmo3"
    for one in (built, again):
        assert (one.get_output_embeddings().weight is one.get_input_embeddings().weight) == tied
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert ("language_model.lm_head.weight" in file.keys()) == (not tied)  # noqa: SIM118


@pytest.mark.parametrize("language", ["olmo3", "gemma"])
def test_shards_of_a_few_kilobytes_come_back_bit_for_bit(language: str, tmp_path: Path) -> None:
    built = model(architecture(language=language))
    built.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    assert identical(built, VLM.from_pretrained(tmp_path))


def test_shards_are_5_gigabytes_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from transformers import PreTrainedModel

    told: list[Any] = []
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", lambda self, directory, **options: told.append(options["max_shard_size"]))
    shared()[0].save_pretrained(tmp_path)
    assert told == ["5GB"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_what_it_is(dtype: torch.dtype, tmp_path: Path) -> None:
    built = vlmkit.build(architecture(language="gemma"), dtype=dtype, seed=1)
    built.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    for again in (VLM.from_pretrained(tmp_path, dtype="auto"), VLM.from_pretrained(tmp_path)):
        assert identical(built, again)
    widened = VLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert {parameter.dtype for parameter in widened.parameters()} == {torch.float32}
    assert all(torch.equal(a.float(), b) for a, b in zip(built.parameters(), widened.parameters(), strict=True))


def test_load_gives_model_and_processor_as_they_were(saved: Path) -> None:
    built, processor = shared()
    again, again_processor = vlmkit.load(saved)
    assert identical(built, again)
    assert not again.training
    assert again_processor.spec == again.config.spec == processor.spec
    assert {parameter.dtype for parameter in vlmkit.load(saved, dtype="bfloat16")[0].parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("options", [{"device_map": "cpu"}, {"device_map": {"": "cpu"}}, {"low_cpu_mem_usage": True}])
def test_every_way_of_loading_gives_the_same_model(saved: Path, options: dict[str, Any]) -> None:
    assert identical(shared()[0], VLM.from_pretrained(saved, **options))


def test_attention_is_chosen_when_loading_as_for_any_model_of_transformers(saved: Path) -> None:
    for attention in ("eager", "sdpa"):
        assert VLM.from_pretrained(saved, attn_implementation=attention).language_model.config._attn_implementation == attention


def test_nothing_is_logged_or_warned_of_while_saving_and_loading(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    logging.getLogger("transformers").propagate = True
    built, processor = shared()
    built.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    vlmkit.load(tmp_path)
    logging.getLogger("transformers").propagate = False
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert [str(warning.message) for warning in recwarn] == []


def test_the_config_states_the_architecture_once(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "vlmkit"
    assert config["architecture"] == shared()[0].config.spec.to_dict()
    assert "text_config" not in config
    again = VLMConfig.from_pretrained(saved)
    assert again.to_dict() == VLMConfig.from_dict(again.to_dict()).to_dict()
    assert again.text_config.hidden_size == 32
    assert again.get_text_config() is again.text_config


def broken(saved: Path, tmp_path: Path, edit: Any) -> Path:
    """A copy of the checkpoint with its tensors edited."""
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    edit(tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors.pop("connector.norm.weight"), r"missing keys: connector\.norm\.weight"),
        (lambda tensors: tensors.pop("encoder.class_embedding"), r"missing keys: encoder\.class_embedding"),
        (lambda tensors: tensors.update(extra=torch.zeros(2)), r"unexpected keys: extra"),
        (
            lambda tensors: [tensors.pop("connector.norm.weight"), tensors.update(extra=torch.zeros(2))],
            r"missing keys: .*; unexpected keys",
        ),
    ],
)
def test_keys_that_are_missing_or_unexpected_are_listed(saved: Path, tmp_path: Path, edit: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        vlmkit.load(broken(saved, tmp_path, edit))


def test_a_weight_of_another_shape_is_refused(saved: Path, tmp_path: Path) -> None:
    directory = broken(saved, tmp_path, lambda tensors: tensors.update({"connector.norm.weight": torch.ones(3)}))
    with pytest.raises(SpecError, match=r"mismatched keys: .*connector\.norm\.weight.*3.*32"):
        vlmkit.load(directory)


def test_a_connector_that_is_not_registered_is_named_with_the_way_to_register_it(saved: Path, tmp_path: Path) -> None:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["architecture"]["connector"] = {"kind": "of_a_stranger", "gain": 2.0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpecError, match=r"connector\.kind: unknown connector 'of_a_stranger'.*vlmkit\.load_plugin or by --plugin"):
        vlmkit.load(tmp_path)


def test_a_directory_without_a_checkpoint_or_with_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*: neither config\.json nor checkpoint/config\.json nor .* GGUF"):
        vlmkit.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no directory"):
        vlmkit.load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(LookupError, match="vlmkit reads no checkpoints of model type 'llama'"):
        vlmkit.load(tmp_path)


def test_saving_onto_a_file_is_refused_and_the_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    with pytest.raises(NotADirectoryError, match="taken is a file; name a directory"):
        shared()[0].save_pretrained(file)
    assert file.read_text() == "mine"


def test_a_save_that_was_cut_off_is_not_loaded_as_if_it_were_whole(saved: Path, tmp_path: Path) -> None:
    shared()[0].save_pretrained(tmp_path, max_shard_size="50KB")
    sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
    with pytest.raises((OSError, SpecError, ValueError)):
        vlmkit.load(tmp_path)
    for file in saved.iterdir():
        (tmp_path / "cut").mkdir(exist_ok=True)
        (tmp_path / "cut" / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Exception, match=r"(?i)incomplete|invalid|safetensors"):
        vlmkit.load(tmp_path / "cut")
