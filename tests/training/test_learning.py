"""A stage moves what its path claims and leaves all the rest bit for bit, for every path of every named tiny model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import vlmkit
from tests.test_router_loss import EXPERTS, made
from tests.tiny import CONVERSATIONS, draw
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError
from vlmkit.training.learning import Learn
from vlmkit.training.optimizers import build_optimizers, claimed_parameters, prepare_parts, set_rates
from vlmkit.training.paths import parts_of, paths_of
from vlmkit.training.stage import Source, Stage

DATA = (Source(name="any"),)
TINY = [name for name in vlmkit.list_models() if name.endswith("-tiny")]
MIXTURES = [f"mixture:{name}" for name in EXPERTS]


def learning(*paths: str, rate: float = 1e-2, **changes: object) -> Stage:
    return Stage(name="s", steps=1, batch_size=1, learn=dict.fromkeys(paths, rate), data=DATA, weight_decay=0.1, **changes)


def whole(name: str) -> tuple[VLM, VLMProcessor, dict[str, Tensor]]:
    """A model, its processor, and the gradient of everything that can learn in it."""
    if name in MIXTURES:
        model, processor = made(name.removeprefix("mixture:"))
    else:
        model, processor = vlmkit.build(name, seed=0), vlmkit.build_processor(name)
        draw(model)
    parts = parts_of(model)
    prepare_parts(learning(*(path for path in paths_of(model) if "." not in path)), parts)
    model(**processor(CONVERSATIONS)).loss.backward()
    return model, processor, {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def moved(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}


def step(model: nn.Module, stage: Stage, gradient: Callable[[], None]) -> None:
    parts = parts_of(model)
    prepare_parts(stage, parts)
    optimizers = build_optimizers(stage, parts, fused=False)
    set_rates(optimizers, stage, 0)
    gradient()
    for optimizer in optimizers:
        optimizer.step()


@pytest.mark.parametrize("name", [*TINY, *MIXTURES])
def test_a_stage_moves_what_its_path_claims_and_leaves_the_rest_bit_for_bit(name: str) -> None:
    model, _, gradients = whole(name)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}

    def gradient() -> None:
        for name, value in model.named_parameters():
            value.grad = gradients[name].clone() if value.requires_grad else None

    for path, members in paths_of(model).items():
        step(model, learning(path), gradient)
        assert moved(model, before) == set(members) & gradients.keys() != set(), path
        with torch.no_grad():
            for member in members:
                model.get_parameter(member).copy_(before[member])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("mixture:olmoe", "language_model.experts"),
        ("mixture:mixtral", "language_model.router"),
        ("prismatic-tiny", "encoder.1"),
        ("idefics-tiny", "fusion.cross_attention"),
        ("llava-1.6-tiny", "fusion.learned"),
        ("aria-tiny", "language_model.layers.0"),
        ("paligemma-tiny", "language_model.embeddings"),
        ("univa-vl-tiny", "encoder.transformer.resblocks.0.mlp"),
    ],
)
def test_its_gradient_is_that_of_a_stage_in_which_everything_learns(name: str, path: str) -> None:
    """Measured 0 apart."""
    model, processor, gradients = whole(name)
    prepare_parts(learning(path), parts_of(model))
    model(**processor(CONVERSATIONS)).loss.backward()
    own = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert own.keys() == {f"{one.part}.{one.name}" for one in claimed_parameters(learning(path), parts_of(model))} != set()
    for parameter, value in own.items():
        torch.testing.assert_close(value, gradients[parameter], rtol=1e-6, atol=1e-8)


def test_a_path_inside_of_one_that_learns_can_be_frozen() -> None:
    model = vlmkit.build("univa-vl-tiny", device="meta")
    parts, paths = parts_of(model), paths_of(model)
    stage = Stage(name="s", steps=1, batch_size=1, language_model=1e-3, learn={"language_model.embeddings": None}, data=DATA)
    prepare_parts(stage, parts)
    found = {f"{one.part}.{one.name}" for one in claimed_parameters(stage, parts)}
    assert found == set(paths["language_model"]) - set(paths["language_model.embeddings"]) != set(paths["language_model"])


def test_groups_carry_their_path_part_and_peak_and_matrices_alone_decay() -> None:
    model = vlmkit.build("univa-vl-tiny", device="meta")
    parts = parts_of(model)
    stage = Stage(
        name="s",
        steps=10,
        batch_size=1,
        connector=1e-3,
        learn={"encoder": Learn(rate=1e-4, warmup=5, weight_decay=0.0), "language_model.layers.1": 2e-3},
        weight_decay=0.1,
        schedule="constant",
        data=DATA,
    )
    prepare_parts(stage, parts)
    optimizers = build_optimizers(stage, parts, fused=False)
    (adamw,) = optimizers
    found = {}
    for group in adamw.param_groups:
        matrices = {parameter.dim() > 1 for parameter in group["params"]}
        assert len(matrices) == 1
        assert group["part"] == group["path"].split(".")[0]
        found[group["path"], matrices.pop()] = (group["peak"], group["weight_decay"])
    assert found == {
        ("encoder", True): (1e-4, 0.0),
        ("encoder", False): (1e-4, 0.0),
        ("connector", True): (1e-3, 0.1),
        ("connector", False): (1e-3, 0.0),
        ("language_model.layers.1", True): (2e-3, 0.1),
        ("language_model.layers.1", False): (2e-3, 0.0),
    }
    for number in range(stage.steps):
        expected = {"encoder": stage.rate("encoder", number), "connector": 1e-3, "language_model.layers.1": 2e-3}
        assert set_rates(optimizers, stage, number) == expected
        assert all(group["lr"] == expected[group["path"]] for group in adamw.param_groups)
    assert stage.rate("encoder", 0) == pytest.approx(1e-4 / 5)


def test_what_is_frozen_inside_a_part_is_in_evaluation_mode() -> None:
    model = vlmkit.build("univa-vl-tiny", device="meta").train()
    prepare_parts(learning("language_model.layers.1"), parts_of(model))
    layers = model.language_model.model.layers
    assert all(module.training for module in layers[1].modules())
    assert not any(module.training for number in (0, 2, 3) for module in layers[number].modules())
    assert not model.language_model.training
    assert not any(module.training for module in model.encoder.modules())
    prepare_parts(learning("language_model", "encoder"), parts_of(model))
    assert all(module.training for part in (model.language_model, model.encoder) for module in part.modules())


def test_of_adapters_only_those_under_the_path_learn() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=r"(language_model|encoder)\..*\.(q_proj|c_fc|up_proj)")
    model = peft.get_peft_model(vlmkit.build("univa-vl-tiny", seed=0), config)
    from vlmkit.training.optimizers import adapters_of

    parts = parts_of(model)
    adapters = adapters_of(model)
    stage = learning("language_model.layers.2")
    prepare_parts(stage, parts, adapters)
    names = [one.name for one in claimed_parameters(stage, parts)]
    assert names
    assert all(".layers.2." in name and "lora_" in name for name in names)
    assert [name for name, value in model.named_parameters() if value.requires_grad] == [
        f"base_model.model.language_model.{name}" for name in names
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 0.0}, r"more than 0 \(None freezes a path\), got 0"),
        ({"rate": 1.0, "warmup": -1}, "0 or more, got -1"),
        ({"rate": 1.0, "final": 2.0}, "between 0 and 1, got 2.0"),
        ({"rate": 1.0, "weight_decay": -1.0}, "0 or more, got -1"),
        ({"rate": 1.0, "warmups": 1}, "did you mean 'warmup'"),
    ],
)
def test_rates_that_make_no_sense_say_why(changes: dict[str, float], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Learn(**changes)


def test_nothing_said_and_zero_said_are_told_apart() -> None:
    for learn in (Learn(rate=1.0), Learn(rate=1.0, warmup=0, final=0.0, weight_decay=0.0)):
        assert Learn.from_json(learn.to_json()) == learn
    assert Learn(rate=1.0).to_dict() == {"rate": 1.0}
