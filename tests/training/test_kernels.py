"""Liger's kernels: refused where they cannot run, and put in by transformers' own integration where they can. None of them is run."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types

import pytest
import torch

import vlmkit
from tests.training.conftest import STAGES, Setup, small
from vlmkit.spec import SpecError
from vlmkit.training.kernels import use_liger

CUDA = torch.device("cuda")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.nn.Module, dict[str, bool]]]:
    """A package of that name which knows one model type and notes what it is asked for."""
    asked: list[tuple[torch.nn.Module, dict[str, bool]]] = []
    names = ("liger_kernel", "liger_kernel.transformers", "liger_kernel.transformers.monkey_patch")
    package, inner, patch = (types.ModuleType(name) for name in names)
    package.__spec__ = importlib.machinery.ModuleSpec("liger_kernel", None)
    patch.MODEL_TYPE_TO_APPLY_LIGER_FN = {"olmo3": None, "llama": None}
    inner._apply_liger_kernel_to_instance = lambda model, **options: asked.append((model, options))
    for module in (package, inner, patch):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("transformers.integrations.liger.is_liger_kernel_available", lambda: True)
    return asked


def test_the_language_model_gets_them_and_keeps_the_loss_of_the_model(stand_in):
    model = vlmkit.build(small(), device="meta")
    use_liger(model, CUDA)
    assert stand_in == [(model.language_model, {"cross_entropy": False, "fused_linear_cross_entropy": False})]


def test_a_model_type_without_kernels_is_refused(stand_in):
    model = vlmkit.build(small(), device="meta")
    model.language_model.config.model_type = "olmo33"
    with pytest.raises(SpecError, match=r"none for language model 'olmo33'; did you mean 'olmo3'\? it has some for llama, olmo3;"):
        use_liger(model, CUDA)
    assert not stand_in


def test_a_run_on_a_cpu_is_refused_before_its_first_step(stand_in, tmp_path):
    setup = Setup(tmp_path / "run")
    with pytest.raises(SpecError, match="kernels 'liger' are Triton's and need a GPU, but the run is on cpu"):
        setup.trainer.train(STAGES[1].replace(kernels="liger"), setup.batches)
    assert setup.trainer.updates == 0


def test_without_the_package_the_way_to_it_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "liger_kernel" else found(name, *more))
    with pytest.raises(SpecError, match=r"pip install 'vlmkit\[liger\]'"):
        use_liger(vlmkit.build(small(), device="meta"), CUDA)


def test_the_real_package_puts_them_into_every_layer(monkeypatch):
    """Seen with liger-kernel 0.8.5."""
    pytest.importorskip("liger_kernel")
    from transformers.models.olmo3 import modeling_olmo3

    for name in ("apply_rotary_pos_emb", "Olmo3RMSNorm", "Olmo3MLP"):  # what it replaces for the whole process
        monkeypatch.setattr(modeling_olmo3, name, getattr(modeling_olmo3, name))
    before = modeling_olmo3.apply_rotary_pos_emb
    model = vlmkit.build(small(), seed=0)
    loss = type(model).forward
    use_liger(model, CUDA)
    assert modeling_olmo3.apply_rotary_pos_emb is not before
    assert type(model).forward is loss
    assert "forward" not in vars(model.language_model)
    layers = model.language_model.model.layers
    for layer in layers:  # norms of queries and keys are left as they are in a model that was made before
        for module in (layer.mlp, layer.post_attention_layernorm, layer.post_feedforward_layernorm):
            assert vars(module)["forward"].__func__.__module__.startswith("liger_kernel")
