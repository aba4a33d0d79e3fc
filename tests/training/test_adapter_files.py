"""Adapters in a directory: PEFT loads what is saved, what PEFT saved is loaded, and a model with adapters inside is never saved wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import vlmkit
from tests.tiny import CONVERSATIONS, architecture, model
from vlmkit.model import VLM
from vlmkit.spec import SpecError
from vlmkit.training.adapter import Adapter
from vlmkit.training.adapter_files import load_adapters, merged_state, read_adapters, save_adapters
from vlmkit.training.adapters import adapted_layers, add_adapters, is_adapter, merge_adapters

ADAPTERS = {
    "encoder": Adapter(rank=2, alpha=3),
    "connector": Adapter(rank=4, dropout=0.5),
    "language_model": Adapter(rank=3, modules=("q_proj", "v_proj")),
    "language_model.layers.1": Adapter(rank=5, alpha=1.5),
}
ARCHITECTURE = architecture(connector="mlp")
BATCH = vlmkit.build_processor(ARCHITECTURE)(CONVERSATIONS)


def plain() -> VLM:
    return model(ARCHITECTURE)


def adapted(dora: bool = False) -> VLM:
    made = add_adapters(plain(), {path: adapter.replace(dora=dora) for path, adapter in ADAPTERS.items()})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if is_adapter(name):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


@torch.no_grad()
def logits(made: Any) -> torch.Tensor:
    out: torch.Tensor = made.eval()(**BATCH).logits
    return out


def values(made: VLM) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in made.named_parameters() if is_adapter(name)}


@pytest.mark.parametrize("dora", [False, True])
def test_peft_loads_what_is_saved_and_answers_the_same(dora: bool, tmp_path: Path) -> None:
    import peft

    made = adapted(dora)
    save_adapters(made, tmp_path / "adapters")
    assert sorted(file.name for file in (tmp_path / "adapters").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "adapters.json",
    ]
    again = peft.PeftModel.from_pretrained(plain(), str(tmp_path / "adapters"))
    assert not torch.equal(logits(made), logits(plain()))
    assert torch.equal(logits(again), logits(made))
    merged = again.merge_and_unload()
    theirs, own = dict(merged.named_parameters()), dict(merge_adapters(made).named_parameters())
    assert theirs.keys() == own.keys()
    assert max(float((theirs[name] - value).detach().abs().max()) for name, value in own.items()) < 1e-6


@pytest.mark.parametrize("dora", [False, True])
def test_what_is_saved_is_loaded_as_it_was(dora: bool, tmp_path: Path) -> None:
    made = adapted(dora)
    for _ in range(2):
        save_adapters(made, tmp_path / "adapters")
    again = load_adapters(plain(), tmp_path / "adapters")
    assert values(again).keys() == values(made).keys()
    assert all(torch.equal(value, values(made)[name]) for name, value in values(again).items())
    assert torch.equal(logits(again), logits(made))
    assert {name for name, value in again.named_parameters() if value.requires_grad} == values(made).keys()
    assert read_adapters(tmp_path / "adapters") == again.adapters == made.adapters
    for name, layer in adapted_layers(made).items():
        assert str(adapted_layers(again)[name]) == str(layer), "dropout too"
    save_adapters(again, tmp_path / "again")
    for file in (tmp_path / "adapters").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_what_peft_alone_saved_is_loaded(tmp_path: Path) -> None:
    import peft

    theirs = peft.get_peft_model(plain(), peft.LoraConfig(r=3, target_modules=r"language_model\..*(q|o)_proj", init_lora_weights=False))
    theirs.save_pretrained(tmp_path)
    again = load_adapters(plain(), tmp_path)
    assert torch.equal(logits(again), logits(theirs))
    assert len(adapted_layers(again)) == 8
    save_adapters(again, tmp_path / "again")
    assert torch.equal(logits(load_adapters(plain(), tmp_path / "again")), logits(theirs))


def test_whole_tensors_of_a_spread_model_are_saved_in_place_of_its_own(tmp_path: Path) -> None:
    made = adapted()
    state = {name: value.clone() for name, value in values(made).items()}
    skeleton = add_adapters(vlmkit.build(ARCHITECTURE, device="meta"), ADAPTERS)
    with pytest.raises(SpecError, match="is not whole in this process; gather the parameters and pass them as `state`"):
        save_adapters(skeleton, tmp_path / "adapters")
    name = next(iter(state))
    with pytest.raises(SpecError, match=f"the state has no {name}"):
        save_adapters(skeleton, tmp_path / "adapters", {key: value for key, value in state.items() if key != name})
    assert not (tmp_path / "adapters").exists()
    save_adapters(skeleton, tmp_path / "adapters", state)
    assert torch.equal(logits(load_adapters(plain(), tmp_path / "adapters")), logits(made))


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_tensors_of_a_spread_model_are_merged_by_their_names(dora: bool, dtype: torch.dtype) -> None:
    made = adapted(dora)
    for name, parameter in made.named_parameters():
        if not is_adapter(name):
            parameter.data = parameter.data.to(dtype)
    skeleton = add_adapters(vlmkit.build(ARCHITECTURE, device="meta"), made.adapters)
    merged = merged_state(skeleton, made.state_dict())
    wanted = merge_adapters(made).state_dict()
    assert merged.keys() == wanted.keys()
    assert all(torch.equal(value, merged[name]) and value.dtype == merged[name].dtype for name, value in wanted.items())


def test_a_model_with_adapters_inside_is_not_saved_as_a_checkpoint(tmp_path: Path) -> None:
    made = adapted()
    with pytest.raises(SpecError, match=r"modules of the model \(encoder.* are PEFT's.*merge_adapters.*save_adapters"):
        made.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    wanted = logits(made)
    merge_adapters(made).save_pretrained(tmp_path / "model")
    loaded = vlmkit.build(ARCHITECTURE, weights=tmp_path / "model")
    assert torch.equal(logits(loaded), logits(made))
    assert float((logits(loaded) - wanted).norm() / wanted.norm()) < 1e-5


def test_where_nothing_or_something_else_is(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="the model has no adapters; add_adapters"):
        save_adapters(plain(), tmp_path / "adapters")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    for place in (tmp_path / "notes", tmp_path / "notes" / "mine.txt"):
        with pytest.raises(FileExistsError, match="is there and holds no adapters"):
            save_adapters(adapted(), place)
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep me"
    with pytest.raises(FileNotFoundError, match=r"holds no adapters \(no adapter_config.json\)"):
        load_adapters(plain(), tmp_path / "notes")


def test_a_directory_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_adapters(adapted(), tmp_path)
    file, saved = tmp_path / "adapter_model.safetensors", load_file(tmp_path / "adapter_model.safetensors")
    name = next(iter(saved))
    save_file({key: value for key, value in saved.items() if key != name}, file)
    with pytest.raises(SpecError, match=f"does not fit the model; differing: {name}"):
        load_adapters(plain(), tmp_path)
    save_file(saved | {name: saved[name][:, :1].contiguous()}, file)
    with pytest.raises(SpecError, match=f"{name} is .*, the model needs"):
        load_adapters(plain(), tmp_path)
    for text, reason in (("{", "not a list of adapters"), ('{"schema": 2, "adapters": {}}', "schema 2"), ("[]", "not a list of adapters")):
        (tmp_path / "adapters.json").write_text(text)
        with pytest.raises(SpecError, match=reason):
            load_adapters(plain(), tmp_path)
    text = json.dumps({"schema": 1, "adapters": {"encoder": {"ranks": 2}}})
    (tmp_path / "adapters.json").write_text(text)
    with pytest.raises(SpecError, match=r"adapters\['encoder'\].ranks: unknown field"):
        load_adapters(plain(), tmp_path)


def test_more_than_matrices_is_left_to_peft(tmp_path: Path) -> None:
    import peft

    config = peft.LoraConfig(r=2, target_modules=r"language_model\..*q_proj", modules_to_save=["connector"])
    theirs = peft.get_peft_model(plain(), config)
    inside: Any = theirs.base_model.model
    with pytest.raises(SpecError, match="the model has adapters with modules_to_save; PEFT's own PeftModel"):
        save_adapters(inside, tmp_path / "adapters")
    with pytest.raises(SpecError, match="connector: not an adapter of add_adapters; merge with merge_and_unload"):
        merge_adapters(inside)
    with pytest.raises(SpecError, match="are PEFT's"):
        inside.save_pretrained(tmp_path / "model")
    theirs.save_pretrained(tmp_path / "theirs")
    with pytest.raises(SpecError, match="has adapters with modules_to_save"):
        load_adapters(plain(), tmp_path / "theirs")


def test_peft_as_users_call_it_trains_a_part_whole_beside_adapters_and_comes_back(tmp_path: Path) -> None:
    """get_peft_model with modules_to_save: learns, is saved and loaded, and merges to a model that is saved and loaded as any."""
    import peft

    config = peft.LoraConfig(r=2, target_modules=r"(language_model|encoder)\..*(q_proj|out_proj|c_fc)", modules_to_save=["connector"])
    theirs = peft.get_peft_model(plain(), config).train()
    optimizer = torch.optim.AdamW([parameter for parameter in theirs.parameters() if parameter.requires_grad], lr=0.01)
    before = {name: value.detach().clone() for name, value in theirs.named_parameters()}
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = theirs(**BATCH).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    moved = {name for name, value in theirs.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name, value in theirs.named_parameters() if value.requires_grad}
    assert any("connector.modules_to_save" in name for name in moved)
    assert any("encoder" in name and "lora_B" in name for name in moved)
    wanted = logits(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    assert torch.equal(logits(peft.PeftModel.from_pretrained(plain(), str(tmp_path / "theirs"))), wanted)
    merged = theirs.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    again = vlmkit.build(ARCHITECTURE, weights=tmp_path / "merged")
    assert float((logits(again) - wanted).norm() / wanted.norm()) < 1e-5


def test_transformers_own_adapters_are_saved_by_transformers(tmp_path: Path) -> None:
    """`model.add_adapter` of transformers: its save_pretrained writes the adapters alone, and says so by their file's name."""
    import peft

    made = plain()
    try:
        made.add_adapter(peft.LoraConfig(r=2, target_modules=r"language_model\..*q_proj", init_lora_weights=False))
    except ValueError as error:
        pytest.skip(f"transformers asks for a newer PEFT than {peft.__version__}: {error}")
    made.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert torch.equal(logits(peft.PeftModel.from_pretrained(plain(), str(tmp_path))), logits(made))
