"""accelerate brings weights from the disk when a module is called: every weight is read by the module that owns it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import infer_auto_device_map

import vlmkit
from tests.counted import TINY_MODELS
from tests.tiny import architecture, draw, picture, user
from vlmkit.architecture import Architecture
from vlmkit.model import VLM

TINY = vlmkit.list_models("*tiny*")
MESSAGES = [[user(picture(56, 84), "what?")]]
KINDS = [("encoder", kind) for kind in vlmkit.list_encoders()] + [("connector", kind) for kind in vlmkit.list_connectors()]
COMBINED = [(part, kind) for part, kind in KINDS if not architecture(**{part: kind}).problems()]


def test_every_tiny_model_and_most_parts_are_walked() -> None:
    assert len(TINY) == TINY_MODELS
    assert len(COMBINED) >= 16


def _offloaded(model: VLM, directory: Path, device_map: dict[str, str]) -> VLM:
    model.save_pretrained(directory / "saved")
    offloaded: VLM = VLM.from_pretrained(directory / "saved", device_map=device_map, offload_folder=directory / "weights")
    return offloaded


@pytest.mark.parametrize("name", TINY)
def test_a_model_on_the_disk_computes_what_it_computes_in_memory(name: str, tmp_path: Path) -> None:
    model, batch = vlmkit.build(name, seed=0), vlmkit.build_processor(name)(MESSAGES)
    draw(model)  # gates that begin at zero would hide what they gate
    offloaded = _offloaded(model, tmp_path, {"": "disk"})
    assert {parameter.device.type for parameter in offloaded.parameters()} == {"meta"}
    assert offloaded.device == model.device
    with torch.no_grad():
        assert torch.equal(offloaded(**batch).logits, model(**batch).logits)
    options = {"max_new_tokens": 2, "do_sample": False}
    assert torch.equal(offloaded.generate(**batch, **options), model.generate(**batch, **options))


@pytest.mark.parametrize(("part", "kind"), COMBINED)
def test_so_does_every_encoder_and_connector(part: str, kind: str, tmp_path: Path) -> None:
    arch: Architecture = architecture(**{part: kind})
    model, batch = vlmkit.build(arch, seed=0), vlmkit.build_processor(arch)(MESSAGES)
    draw(model)
    offloaded = _offloaded(model, tmp_path, {"": "disk"})
    with torch.no_grad():
        assert torch.equal(offloaded(**batch).logits, model(**batch).logits)


def test_parts_lie_on_the_disk_and_in_memory_side_by_side(tmp_path: Path) -> None:
    arch = vlmkit.architecture("llava-1.6-tiny")
    model, batch = vlmkit.build(arch, seed=0), vlmkit.build_processor(arch)(MESSAGES)
    device_map = {"encoder": "cpu", "connector": "disk", "fusion": "disk", "language_model": "cpu"}
    offloaded = _offloaded(model, tmp_path, device_map)
    assert offloaded.hf_device_map == device_map
    with torch.no_grad():
        assert torch.equal(offloaded(**batch).logits, model(**batch).logits)


def test_what_does_not_fit_in_memory_goes_to_the_disk_by_itself(tmp_path: Path) -> None:
    model = vlmkit.build("univa-vl-tiny", seed=0, encoder=architecture().encoder)
    batch = vlmkit.build_processor(model.spec)(MESSAGES)
    model.save_pretrained(tmp_path / "saved")
    room = int(0.6 * sum(parameter.nbytes for parameter in model.parameters()))
    offloaded = VLM.from_pretrained(tmp_path / "saved", device_map="auto", max_memory={"cpu": room}, offload_folder=tmp_path / "weights")
    assert set(offloaded.hf_device_map.values()) == {"cpu", "disk"}
    with torch.no_grad():
        assert torch.equal(offloaded(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("name", TINY)
def test_what_adds_to_its_own_input_lies_on_one_device(name: str) -> None:
    model = vlmkit.build(name, device="meta", dtype="float32")
    whole = [path for path, module in model.named_modules() if type(module).__name__ in model._no_split_modules]
    assert [tower for tower in model.towers if type(tower).__name__ in model._no_split_modules] == [*model.towers]
    total = sum(parameter.nbytes for parameter in model.parameters())
    for share in (0.2, 0.5, 0.8):
        memory = {0: int(share * total), 1: int(share * total), "cpu": 2 * total}
        laid = infer_auto_device_map(model, max_memory=memory, no_split_module_classes=model._no_split_modules)
        assert [path for path in laid if any(path.startswith(f"{undivided}.") for undivided in whole)] == []
