from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import load_file
from vlmkit.training.checkpoint import State, StateError, save_state

from vlmkit.training import checkpoint


def save(path, value: float) -> None:
    module = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(module.weight, value)
    save_state(path, {"model": module}, [], {"step": int(value)})


def test_a_crash_at_any_point_of_saving_leaves_the_previous_state(tmp_path, monkeypatch):
    path = tmp_path / "state.safetensors"
    save(path, 1)

    class CrashError(Exception):
        pass

    def crash(*args, **kwargs):
        raise CrashError

    def half(tensors, file, metadata):
        file.write_bytes(b"half of it")
        raise CrashError

    for module, name, broken in ((checkpoint, "save_file", half), (os, "fsync", crash), (os, "replace", crash)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, broken)
            with pytest.raises(CrashError):
                save(path, 2)
        assert State(path).position == {"step": 1}
        assert load_file(path)["model.weight"].eq(1).all()
    save(path, 3)
    assert State(path).position == {"step": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_torn_file_is_named(tmp_path):
    path = tmp_path / "state.safetensors"
    save(path, 1)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StateError, match=r"state\.safetensors is not a saved training state"):
        State(path)


def test_another_model_does_not_fit(tmp_path):
    path = tmp_path / "state.safetensors"
    save(path, 1)
    with pytest.raises(StateError, match="bias"):
        State(path).load_module("model", torch.nn.Linear(2, 2, bias=False))
    with pytest.raises(StateError, match=r"model\.weight is \(2, 2\), the module has \(2, 3\)"):
        State(path).load_module("model", torch.nn.Linear(3, 2))


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_optimizer_and_generators_come_back(tmp_path, kind):
    def step(module, optimizer):
        optimizer.zero_grad()
        module(torch.randn(3, 2)).square().sum().backward()
        optimizer.step()

    torch.manual_seed(0)
    module = torch.nn.Linear(2, 2)
    options = {"lr": 0.1, "momentum": 0.9} if kind is torch.optim.SGD else {"lr": 0.1}
    optimizer = kind(module.parameters(), **options)
    step(module, optimizer)
    save_state(tmp_path / "state", {"model": module}, [optimizer], {})
    step(module, optimizer)

    again = torch.nn.Linear(2, 2)
    other = kind(again.parameters(), **options)
    state = State(tmp_path / "state")
    state.load_module("model", again)
    state.load_optimizers([other])
    state.restore_random()
    step(again, other)
    assert torch.equal(module.weight, again.weight)


def test_tied_weights_are_kept_once(tmp_path):
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2, bias=False), "b": torch.nn.Linear(2, 2, bias=False)})
    module["b"].weight = module["a"].weight
    save_state(tmp_path / "state", {"model": module}, [], {})
    assert "model.b.weight" not in load_file(tmp_path / "state")
    State(tmp_path / "state").load_module("model", module)
