"""Adapters on a part by its path: nothing changes before the first update, each of them learns, and merged they are what they were."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import vlmkit
from tests.tiny import CONVERSATIONS, apart, draw, model
from vlmkit.experts_module import GroupedLinear
from vlmkit.model import VLM
from vlmkit.spec import SpecError
from vlmkit.training.adapter import Adapter
from vlmkit.training.adapter_files import load_adapters, save_adapters
from vlmkit.training.adapters import (
    adapted_layers,
    add_adapters,
    draw_adapters,
    drawn,
    is_adapter,
    merge_adapters,
    merged_weight,
    plain_name,
)

TINY = vlmkit.list_models("*-tiny")
SMALL = Adapter(rank=2, alpha=4)
ALL = {"encoder": SMALL, "connector": SMALL, "language_model": SMALL}


def built(name: str, seed: int = 0, **parts: Any) -> VLM:
    made = vlmkit.build(name, seed=seed, **parts)
    draw(made, seed)
    return made


def batch_of(name: str) -> Any:
    return vlmkit.build_processor(name)(CONVERSATIONS[1:3])


def where_linear(made: VLM, *parts: str) -> dict[str, Adapter]:
    """`ALL` on those parts that have a linear layer: Fuyu's patches go through none."""
    return {part: SMALL for part in parts if any(isinstance(module, nn.Linear) for module in getattr(made, part).modules())}


def learn(made: VLM, seed: int = 1) -> VLM:
    """Adapters as they are somewhere in training: nothing of them is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if is_adapter(name):
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(parameter * (1 + 0.1 * noise) if "magnitude" in name else 0.1 * noise)
    return made


@pytest.mark.parametrize("name", TINY)
def test_every_linear_layer_of_a_named_model_learns_through_its_adapter(name: str) -> None:
    made, batch = built(name), batch_of(name)
    parts = where_linear(made, "encoder", "connector", "fusion", "language_model")
    kinds = nn.Linear | GroupedLinear  # the second holds those of experts
    linear = {name for name, module in made.named_modules() if isinstance(module, kinds) and name.split(".")[0] in parts}
    with torch.no_grad():
        before = made(**batch).logits
    add_adapters(made, parts, seed=3)
    with torch.no_grad():
        assert torch.equal(made(**batch).logits, before)
    unused = {id(module) for tower in made.towers for part in tower.unused() for module in part.modules()}
    linear -= {name for name, module in made.named_modules() if id(module) in unused}
    assert linear - adapted_layers(made).keys() == {"language_model.lm_head"}
    assert len(linear) >= 10
    made.train()(**batch).loss.backward()
    named = dict(made.named_parameters())
    assert {name for name, parameter in named.items() if parameter.requires_grad} == {name for name in named if is_adapter(name)}
    gradients = {name: parameter.grad for name, parameter in named.items() if ".lora_B." in name}
    assert len(gradients) == len(linear) - 1
    assert {name for name, gradient in gradients.items() if gradient is None or gradient.abs().max() == 0} == set()


def test_so_many_models_were_walked_over() -> None:
    assert len(TINY) >= 20


@pytest.mark.parametrize("kind", vlmkit.connectors.names())
def test_every_linear_layer_of_a_connector_learns_and_other_starts_keep_the_output(kind: str) -> None:
    """PiSSA and OLoRA change the weight that the layer holds: whoever reads it past the layer sees another one."""
    import peft

    from tests.tiny import architecture

    made = model(architecture(connector=kind))
    layers = [name for name, module in made.connector.named_modules(prefix="connector") if isinstance(module, nn.Linear)]
    batch = vlmkit.build_processor(made.spec)(CONVERSATIONS)
    with torch.no_grad():
        before = made(**batch).logits
    if not layers:
        with pytest.raises(SpecError, match="'connector' holds no linear layer"):
            add_adapters(made, {"connector": SMALL})
        return
    for start in ("pissa", "olora"):
        other = peft.get_peft_model(copy.deepcopy(made), peft.LoraConfig(r=2, target_modules=layers, init_lora_weights=start))
        with torch.no_grad():
            assert apart(other(**batch).logits, before) < 1e-4
    add_adapters(made, {"connector": SMALL}).train()(**batch).loss.backward()
    gradients = [parameter.grad for name, parameter in made.named_parameters() if ".lora_B." in name]
    assert len(gradients) == len(layers)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["pissa", "olora"])
@pytest.mark.parametrize("name", TINY)
def test_other_starts_keep_the_output_of_a_named_model(name: str, start: str) -> None:
    """Measured: 2e-5 at most."""
    import peft

    made, batch = built(name), batch_of(name)
    with torch.no_grad():
        before = made(**batch).logits
    chosen = peft.LoraConfig(r=2, target_modules="all-linear", exclude_modules=r".*lm_head", init_lora_weights=start)
    adapted = peft.get_peft_model(made, chosen)
    moved = [module for module in adapted.modules() if hasattr(module, "lora_A")]
    assert len(moved) >= 9
    with torch.no_grad():
        assert apart(adapted(**batch).logits, before) < 1e-4


@pytest.mark.parametrize("dora", [False, True])
def test_merged_is_adapted_in_each_part_and_leaves_nothing_of_peft(dora: bool) -> None:
    """In double precision, where rounding does not hide an error."""
    made, batch = built("univa-vl-tiny").double(), batch_of("univa-vl-tiny")
    names, trained = set(made.state_dict()), [parameter.requires_grad for parameter in made.parameters()]
    add_adapters(
        made,
        {
            "encoder": Adapter(rank=2, alpha=3, dora=dora),
            "connector": Adapter(rank=4, dora=dora, dropout=0.5),
            "language_model": Adapter(rank=3, dora=dora, modules=("q_proj", "mlp.up_proj")),
        },
    )
    learn(made).double()
    with torch.no_grad():
        adapted = made.eval()(**batch).logits
    theirs = {
        f"{name}.weight": weight for name, layer in adapted_layers(copy.deepcopy(made)).items() for weight in [_merged_by_peft(layer)]
    }
    assert merge_adapters(made) is made
    with torch.no_grad():
        assert made(**batch).logits.dtype == torch.float64
        assert float((made(**batch).logits - adapted).abs().max()) < 1e-12
    assert max(float((made.get_parameter(name) - weight).abs().max()) for name, weight in theirs.items()) < 1e-15
    assert set(made.state_dict()) == names
    assert [parameter.requires_grad for parameter in made.parameters()] == trained
    assert not hasattr(made, "peft_config")
    assert not adapted_layers(merge_adapters(made))


def test_merged_is_adapted_in_single_precision() -> None:
    """Adapters that learned for three updates. Measured: 3e-7 of what a layer makes of its inputs, 1.2e-6 of the logits, to which
    every layer adds its rounding; in double precision 1e-14 (above)."""
    made, batch = vlmkit.build("univa-vl-tiny", seed=0), batch_of("univa-vl-tiny")
    before = made(**batch).logits.detach()
    add_adapters(made, ALL).train()
    optimizer = torch.optim.AdamW([parameter for parameter in made.parameters() if parameter.requires_grad], lr=1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = made(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
        for name, layer in adapted_layers(made).items()
    ]
    with torch.no_grad():
        adapted = made.eval()(**batch).logits
        for hook in hooks:
            hook.remove()
        assert apart(adapted, before) > 1e-2
        assert float((merge_adapters(made)(**batch).logits - adapted).norm() / adapted.norm()) < 1e-5
        apart_by = {name: float((made.get_submodule(name)(x) - y).norm() / y.norm()) for name, (x, y) in seen.items()}
    assert len(apart_by) == 42
    assert max(apart_by.values()) < 1e-6


def _merged_by_peft(layer: Any) -> Tensor:
    layer.merge(safe_merge=True)
    weight: Tensor = layer.get_base_layer().weight.detach()
    return weight


@given(st.integers(1, 4), st.integers(2, 6), st.integers(2, 6), st.floats(0.1, 4), st.booleans(), st.integers(0, 100))
def test_a_merged_weight_is_the_layer(rank: int, width_in: int, width_out: int, alpha: float, dora: bool, seed: int) -> None:
    import peft

    torch.manual_seed(seed)
    whole = nn.Sequential(nn.Linear(width_in, width_out, bias=False))
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["0"], use_dora=dora, init_lora_weights=False)
    peft.inject_adapter_in_model(config, whole)
    layer: Any = whole[0]
    magnitude = layer.lora_magnitude_vector["default"].weight * 1.5 if dora else None
    if magnitude is not None:
        layer.lora_magnitude_vector["default"].weight.data.mul_(1.5)
    inputs = torch.randn(3, width_in)
    weight = merged_weight(layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight, alpha / rank, magnitude)
    wanted = layer(inputs).detach()
    assert apart(inputs @ weight.T, wanted) <= 1e-5 * (1 + float(wanted.abs().max()))


def test_dora_starts_at_the_length_of_each_row() -> None:
    """Measured: 5e-7 of logits of size 1."""
    made, batch = built("univa-vl-tiny"), batch_of("univa-vl-tiny")
    with torch.no_grad():
        before = made(**batch).logits
        add_adapters(made, {"encoder": Adapter(rank=2, dora=True), "language_model": Adapter(rank=2, dora=True)})
        assert apart(made(**batch).logits, before) < 1e-5
    for layer in adapted_layers(made).values():
        assert torch.equal(layer.lora_magnitude_vector["default"].weight, layer.base_layer.weight.norm(dim=1))
    made.train()(**batch).loss.backward()
    gradients = [parameter.grad for name, parameter in made.named_parameters() if "lora_B" in name or "magnitude" in name]
    assert len(gradients) == 2 * len(adapted_layers(made))
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_adapters_are_float32_over_weights_of_half_precision() -> None:
    made, batch = built("univa-vl-tiny", dtype="bfloat16"), batch_of("univa-vl-tiny")
    with torch.no_grad():
        before = made(**batch).logits
        add_adapters(made, ALL)
        assert torch.equal(made(**batch).logits, before)
    assert {parameter.dtype for name, parameter in made.named_parameters() if is_adapter(name)} == {torch.float32}
    assert {parameter.dtype for name, parameter in made.named_parameters() if not is_adapter(name)} == {torch.bfloat16}
    made.train()(**batch).loss.backward()
    assert all(parameter.grad.abs().max() > 0 for name, parameter in made.named_parameters() if "lora_B" in name)


def test_values_follow_from_name_and_seed_alone() -> None:
    first, others = add_adapters(built("univa-vl-tiny"), ALL, seed=5), {"connector": SMALL}
    torch.manual_seed(77)
    state = torch.get_rng_state()
    second = dict(add_adapters(built("univa-vl-tiny", seed=4), others, seed=5).named_parameters())
    values = {name: value for name, value in first.named_parameters() if is_adapter(name)}
    shared = [name for name in values if name in second]
    assert len(shared) == 4
    assert all(torch.equal(values[name], second[name]) for name in shared)
    for name, value in values.items():
        assert torch.equal(value, drawn(name, tuple(value.shape), 5))
        assert float(value.abs().max()) <= value.shape[1] ** -0.5
        assert ("lora_A" in name) is bool(value.abs().max() > 0)
        assert "lora_A" not in name or not torch.equal(value, drawn(name, tuple(value.shape), 6))
    torch.manual_seed(77)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_callers_random_numbers_stay_where_they_are() -> None:
    made = built("univa-vl-tiny")
    before = torch.get_rng_state()
    add_adapters(made, ALL)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dora", [False, True])
def test_a_skeleton_gets_its_adapters_drawn_once_it_has_weights(dora: bool) -> None:
    adapters = {path: SMALL.replace(dora=dora) for path in ALL}
    whole = built("univa-vl-tiny")
    weights = {name: value.clone() for name, value in whole.state_dict().items()}
    add_adapters(whole, adapters, seed=2)
    skeleton = add_adapters(vlmkit.build("univa-vl-tiny", device="meta"), adapters, seed=2)
    assert all(parameter.is_meta for parameter in skeleton.parameters())
    assert {name: value.shape for name, value in skeleton.named_parameters()} == {
        name: value.shape for name, value in whole.named_parameters()
    }
    with pytest.raises(SpecError, match="its weights are on the meta device; draw its adapter once they are there"):
        draw_adapters(skeleton, 2)
    # Meta has no values for buffers either: the skeleton of an engine has real ones.
    skeleton.to_empty(device="cpu")
    for name, parameter in skeleton.named_parameters():
        if not is_adapter(name):
            parameter.data.copy_(weights[plain_name(name)])
    draw_adapters(skeleton, 2)
    drawn_here = dict(skeleton.named_parameters())
    assert all(torch.equal(drawn_here[name], value) for name, value in whole.named_parameters())


def test_a_path_says_which_layers_and_the_longer_one_decides() -> None:
    made = add_adapters(
        built("univa-vl-tiny"),
        {
            "language_model": Adapter(rank=2, modules=("q_proj", "v_proj")),
            "language_model.layers.1": Adapter(rank=5, alpha=7, modules=r"mlp\..*", dropout=0.25),
            "connector": Adapter(rank=3),
        },
    )
    layers = adapted_layers(made)
    found = Counter((name.split(".")[0], layer.r["default"], layer.lora_alpha["default"]) for name, layer in layers.items())
    depth = len(made.language_model.model.layers)
    assert found == {("language_model", 2, 32): 2 * (depth - 1), ("language_model", 5, 7): 3, ("connector", 3, 32): 2}
    inside = [layer for name, layer in layers.items() if ".layers.1." in name]
    assert [layer.lora_dropout["default"].p for layer in inside] == [0.25] * 3
    assert all(layer.scaling["default"] == 7 / 5 for layer in inside)
    one = add_adapters(built("univa-vl-tiny"), {"language_model.model.layers.0.self_attn.q_proj": Adapter(rank=2)})
    assert list(adapted_layers(one)) == ["language_model.model.layers.0.self_attn.q_proj"]


def test_a_tower_of_several_is_a_path() -> None:
    made = add_adapters(built("prismatic-tiny"), {"encoder.1": SMALL})
    assert {name[: len("encoder.1.")] for name in adapted_layers(made)} == {"encoder.1."}


@pytest.mark.parametrize(
    ("name", "adapters", "reason"),
    [
        ("univa-vl-tiny", {}, "no path is named"),
        ("univa-vl-tiny", {"fusion": SMALL}, r"'fusion' holds no linear layer that takes an adapter; .* encoder \(12\), connector \(2\), "),
        ("univa-vl-tiny", {"encoders": SMALL}, r"'encoders' holds no linear layer"),
        ("univa-vl-tiny", {"language_model.lm_head": SMALL}, "'language_model.lm_head' holds no linear layer"),
        (
            "univa-vl-tiny",
            {"encoder": Adapter(modules=("q_proj",))},
            r"\('q_proj',\) names no linear layer there .* out_proj, c_fc, c_proj",
        ),
        (
            "univa-vl-tiny",
            {"encoder": SMALL, "connector": SMALL.replace(dora=True)},
            r"dora is one word .* \['connector'\].* \['encoder'\]",
        ),
        ("univa-vl-tiny", {"encoder": 8}, r"adapters\['encoder'\]: expected an Adapter, got 8"),
        ("aria-tiny", {"language_model.experts": SMALL}, "'language_model.experts' holds no linear layer"),
        ("fuyu-tiny", {"encoder": SMALL}, r"'encoder' holds no linear layer .* connector \(1\), language_model \(8\)"),
    ],
)
def test_what_takes_no_adapter_is_said(name: str, adapters: Any, reason: str) -> None:
    made = vlmkit.build(name, device="meta")
    with pytest.raises(SpecError, match=reason):
        add_adapters(made, adapters)
    assert not adapted_layers(made)


def test_a_second_time_is_refused() -> None:
    made = add_adapters(vlmkit.build("univa-vl-tiny", device="meta"), {"connector": SMALL})
    with pytest.raises(SpecError, match="has adapters already; merge_adapters"):
        add_adapters(made, {"encoder": SMALL})


def test_what_a_tower_leaves_unused_gets_no_adapter() -> None:
    tiny = vlmkit.architecture("llava-1.5-tiny")
    kept = vlmkit.build(tiny.replace(encoder=tiny.encoder.replace(keep_unused=True)), device="meta")
    unused = [module for tower in kept.towers for part in tower.unused() for module in part.modules() if isinstance(module, nn.Linear)]
    assert unused
    without = add_adapters(vlmkit.build(tiny, device="meta"), {"encoder": SMALL})
    assert list(adapted_layers(add_adapters(kept, {"encoder": SMALL}))) == list(adapted_layers(without))


def test_an_adapter_reads_back_and_refuses_what_it_cannot_be() -> None:
    for adapter in (
        Adapter(),
        Adapter(rank=4, alpha=1, dropout=0.1, dora=True, quantize="nf4", modules=("a", "b.c")),
        Adapter(modules="a|b"),
    ):
        assert Adapter.from_json(adapter.to_json()) == adapter
    for wrong, reason in (
        ({"rank": 0}, "rank: expected 1 or more, got 0"),
        ({"alpha": 0}, "alpha: expected more than 0"),
        ({"dropout": 1}, "dropout: expected a share"),
        ({"quantize": "int8"}, "quantize: expected one of 'nf4', got 'int8'"),
        ({"modules": "("}, "no regular expression"),
        ({"modules": ()}, "expected names"),
        ({"modules": ("q_proj", "")}, "expected names"),
        ({"r": 8}, "r: unknown field"),
    ):
        with pytest.raises(SpecError, match=reason):
            Adapter(**wrong)


def test_a_run_with_adapters_trains_these_alone(tmp_path: Path) -> None:
    """Adapters are there before the trainer is."""
    from tests.training.conftest import STAGES, Setup
    from vlmkit.training.loop import Trainer

    def begun(steps: int, path: Path) -> tuple[VLM, dict[str, Tensor]]:
        setup = Setup(path)
        made = add_adapters(setup.model, {"connector": SMALL, "language_model": SMALL}, seed=1)
        before = {name: value.detach().clone() for name, value in made.named_parameters()}
        stage = STAGES[2].replace(encoder=None, warmup=0, steps=steps)
        Trainer(setup.run, made, workers=0).train(stage, setup.batches)
        setup.run.unlock()
        return made, before

    made, before = begun(3, tmp_path / "run")
    moved = {name for name, value in made.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if is_adapter(name)}
    assert len(moved) >= 20
    save_adapters(made, tmp_path / "adapters")
    again = load_adapters(vlmkit.build(made.spec, seed=0), tmp_path / "adapters")
    values = dict(again.named_parameters())
    assert all(torch.equal(value, values[name]) for name, value in made.named_parameters())
