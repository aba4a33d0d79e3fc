"""Low-rank adapters of experts: each expert's matrix has its own, they learn, are merged, saved, and read by PEFT."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from torch import Tensor

import vlmkit
from tests.test_experts import FOUR, made
from tests.tiny import apart
from vlmkit.experts import Experts
from vlmkit.model import VLM
from vlmkit.recompute import recompute
from vlmkit.spec import SpecError
from vlmkit.training.adapted import Merged, scales_of
from vlmkit.training.adapter import Adapter
from vlmkit.training.adapter_files import load_adapters, merged_state, save_adapters
from vlmkit.training.adapters import adapted_layers, add_adapters, draw_adapters, is_adapter, merge_adapters
from vlmkit.weight_source import HeldWeights

EXPERTS = "language_model.experts"
SMALL = Adapter(rank=3, alpha=6.0)
BIASED: dict[str, Any] = {"mlp_bias": True}


def adapted(adapters: dict[str, Adapter] | None = None, experts: Experts = FOUR) -> tuple[VLM, dict[str, Tensor]]:
    """A small Llama whose experts have adapters as they are somewhere in training."""
    model, batch = made(experts, **BIASED)
    add_adapters(model, {EXPERTS: SMALL} if adapters is None else adapters)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model, batch


def logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**batch).logits
    return found


def by_hand(model: VLM) -> VLM:
    """The plain model with each expert's product added, expert by expert, row by row of the rank."""
    plain, _ = made(model.config.spec.language_model.experts, **BIASED)
    for name, layer in adapted_layers(model).items():
        weight, first, second = (
            value.detach() for value in (plain.get_submodule(name).weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight)
        )
        count, rank = len(weight), layer.r["default"]
        for expert in range(count):
            for row in range(rank):
                weight[expert] += layer.scaling["default"] * torch.outer(second[:, row * count + expert], first[expert * rank + row])
    return plain


def test_a_model_begins_as_it_was_and_its_adapters_alone_learn() -> None:
    plain, batch = made(FOUR, **BIASED)
    model, _ = made(FOUR, **BIASED)
    add_adapters(model, {EXPERTS: SMALL})
    assert torch.equal(logits(model, batch), logits(plain, batch))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    layers = [f"language_model.model.layers.{number}.mlp.experts.{name}_proj" for number in (0, 1) for name in ("gate", "up", "down")]
    assert learning == {f"{layer}.{kind}.default.weight" for layer in layers for kind in ("lora_A", "lora_B")}
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters() if "layers.0.mlp.experts.up_proj.lora" in name}
    assert sorted(shapes.values()) == [(12, 32), (64, 12)]


@pytest.mark.parametrize("experts", [FOUR, Experts(count=3, top=3, layers=(1,))])
def test_adapted_is_each_expert_with_its_own_product_and_so_is_merged(experts: Experts) -> None:
    model, batch = adapted(experts=experts)
    plain, _ = made(experts, **BIASED)
    wanted = logits(by_hand(model), batch)
    assert apart(wanted, logits(plain, batch)) > 0.1
    assert apart(logits(model, batch), wanted) < 1e-5
    held = merged_state(model, dict(model.named_parameters()))
    merged = merge_adapters(model)
    assert apart(logits(merged, batch), wanted) < 1e-5
    assert not adapted_layers(merged)
    assert all(torch.equal(held[name], value) for name, value in merged.named_parameters())


def test_recomputed_blocks_give_the_same_gradients() -> None:
    gradients = []
    for again in (False, True):
        model, batch = adapted()
        model.train()
        recompute(model, again)
        model(**batch).loss.backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.requires_grad})
    assert all(float(value.abs().max()) > 0 for value in gradients[0].values())
    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items())


def test_saved_they_are_read_back_here_and_by_peft(tmp_path: Path) -> None:
    adapters = {EXPERTS: SMALL, "language_model": Adapter(rank=2, alpha=4.0), f"{EXPERTS}.down_proj": Adapter(rank=5, alpha=1.0)}
    model, batch = adapted(adapters)
    ranks = {name: layer.r["default"] for name, layer in adapted_layers(model).items()}
    assert {(name.rpartition(".")[2], rank) for name, rank in ranks.items()} == {
        *((f"{name}_proj", 3) for name in ("gate", "up")),
        *((f"{name}_proj", 2) for name in "qkvo"),
        ("down_proj", 5),
    }
    save_adapters(model, tmp_path / "adapters")
    wanted = logits(model, batch)
    assert torch.equal(logits(load_adapters(made(FOUR, **BIASED)[0], tmp_path / "adapters"), batch), wanted)
    theirs = PeftModel.from_pretrained(made(FOUR, **BIASED)[0], str(tmp_path / "adapters"))
    assert apart(logits(theirs, batch), wanted) == 0
    assert apart(logits(theirs.merge_and_unload(), batch), wanted) < 1e-5


def test_what_peft_alone_wrote_is_read(tmp_path: Path) -> None:
    plain, batch = made(FOUR, **BIASED)
    names = [name for name, _ in plain.named_parameters() if name.endswith("experts.up_proj.weight")]
    theirs = get_peft_model(copy.deepcopy(plain), LoraConfig(r=2, target_modules=[], target_parameters=names, init_lora_weights=False))
    theirs.save_pretrained(str(tmp_path))
    assert apart(logits(theirs, batch), logits(plain, batch)) > 1e-2
    assert apart(logits(load_adapters(plain, tmp_path), batch), logits(theirs, batch)) == 0


@given(st.data())
def test_any_run_of_merged_values_is_that_of_the_merged_weight(data: st.DataObject) -> None:
    model, _ = adapted()
    state = dict(model.named_parameters())
    source = Merged(HeldWeights({name: value.detach() for name, value in state.items()}), scales_of(model))
    wanted = merged_state(model, state)
    name = data.draw(st.sampled_from(sorted(name for name in wanted if ".experts." in name)))
    assert source.shape(name) == tuple(wanted[name].shape)
    start = data.draw(st.integers(0, wanted[name].numel() - 1))
    length = data.draw(st.integers(1, wanted[name].numel() - start))
    torch.testing.assert_close(source.read(name, start, length), wanted[name].reshape(-1)[start : start + length], rtol=0, atol=1e-6)


def test_values_follow_from_name_and_seed_alone() -> None:
    one, other = (made(FOUR, **BIASED)[0] for _ in range(2))
    for model in (one, other):
        add_adapters(model, {EXPERTS: SMALL}, seed=7)
    draw_adapters(other, 7)
    assert all(torch.equal(value, other.get_parameter(name)) for name, value in one.named_parameters())


@pytest.mark.parametrize(
    ("adapters", "said"),
    [
        ({EXPERTS: Adapter(dora=True)}, r"adapter\.dora: True of language_model\.model\.layers\.0\.mlp\.experts\.\w+, but"),
        ({EXPERTS: Adapter(quantize="nf4")}, r"adapter\.quantize: 'nf4' of .* in one weight, and PEFT's adapters of such have none; leave"),
        (
            {EXPERTS: Adapter(), "connector": Adapter(dropout=0.1)},
            r"adapter\.dropout: 0\.1 of connector.*, nor have those beside them; leave dropout out, or name linear layers by `modules`",
        ),
    ],
)
def test_what_peft_cannot_put_on_a_parameter_is_refused_before_anything_changes(adapters: dict[str, Adapter], said: str) -> None:
    model, _ = made(FOUR, **BIASED)
    with pytest.raises(SpecError, match=said):
        add_adapters(model, adapters)
    assert not adapted_layers(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_dropout_and_dora_stay_for_the_linear_layers_that_are_named() -> None:
    model, _ = made(FOUR, **BIASED)
    add_adapters(model, {"language_model": Adapter(dora=True, dropout=0.1, modules=("q_proj", "v_proj"))})
    assert {name.rpartition(".")[2] for name in adapted_layers(model)} == {"q_proj", "v_proj"}


def test_other_parameters_that_peft_adapts_are_left_to_it(tmp_path: Path) -> None:
    model, _ = made(FOUR, **BIASED)
    name = next(name for name, _ in model.named_parameters() if name.endswith("mlp.gate.weight"))
    theirs = get_peft_model(copy.deepcopy(model), LoraConfig(r=2, target_modules=[], target_parameters=[name]))
    theirs.save_pretrained(str(tmp_path))
    with pytest.raises(SpecError, match=r"has adapters with target_parameters \(.*mlp\.gate\.weight\)"):
        load_adapters(copy.deepcopy(model), tmp_path)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=[], target_parameters=[name]), model)
    with pytest.raises(SpecError, match=r"mlp\.gate: not an adapter of add_adapters"):
        merge_adapters(model)
    with pytest.raises(SpecError, match="the model has adapters with target_parameters"):
        save_adapters(model, tmp_path / "other")


def test_experts_of_a_named_model_are_a_path_and_say_so_where_they_are_missed() -> None:
    model = vlmkit.build("moe-llava-tiny", seed=0)
    add_adapters(model, {EXPERTS: SMALL})
    assert {name.split(".")[3] for name in adapted_layers(model)} == {"0", "2"}
    with pytest.raises(SpecError, match="holds no linear layer"):
        add_adapters(vlmkit.build("llava-1.5-tiny", seed=0), {EXPERTS: SMALL})
