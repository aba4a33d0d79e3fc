"""From a name to a model: what is asked for is what is built, and what cannot be is said before anything is allocated."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import vlmkit
from tests.tiny import CONVERSATIONS, architecture, language_model, model, part, shared
from vlmkit.spec import SpecError


def weights(built: vlmkit.VLM) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in built.parameters()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_model_that_the_machine_cannot_hold_stops_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmkit.model.VLM.__init__", None)  # nothing may be built once the numbers are known
    counts = vlmkit.Parameters(631_371_520, 39_335_680, 0, 32_233_522_176)
    monkeypatch.setattr(vlmkit.Architecture, "parameters", lambda self: counts)
    monkeypatch.setattr(importlib.import_module("vlmkit.build"), "free_memory", lambda: 20 * 2**30)
    with pytest.raises(MemoryError) as caught:
        vlmkit.build("univa-vl")
    told = str(caught.value)
    assert "univa-vl needs 122.6 GiB for its weights in float32, but cpu has 20.0 GiB free" in told
    assert 'device="meta"' in told
    assert '"univa-vl-tiny"' in told
    with pytest.raises(MemoryError, match=r"needs 61\.3 GiB for its weights in bfloat16"):
        vlmkit.build("univa-vl", dtype="bfloat16")


def test_free_memory_is_at_most_what_the_machine_has() -> None:
    import psutil

    from vlmkit.build import free_memory

    assert 0 < free_memory() <= psutil.virtual_memory().total


def test_a_seed_decides_the_weights_and_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(3)
    first = weights(vlmkit.build(architecture(), seed=1))
    drawn = torch.rand(4)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(4))
    assert equal(first, weights(vlmkit.build(architecture(), seed=1)))
    assert not equal(first, weights(vlmkit.build(architecture(), seed=2)))


def test_without_a_seed_the_callers_random_numbers_decide() -> None:
    torch.manual_seed(3)
    first = weights(vlmkit.build(architecture()))
    torch.manual_seed(3)
    assert equal(first, weights(vlmkit.build(architecture())))
    assert not equal(first, weights(vlmkit.build(architecture())))


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16, "float32", None])
def test_every_weight_has_the_dtype_that_was_asked_for_and_the_default_is_left_alone(dtype: Any) -> None:
    built = vlmkit.build(architecture(), dtype=dtype)
    wanted = torch.float32 if dtype in (None, "float32") else torch.bfloat16
    assert {parameter.dtype for parameter in built.parameters()} == {wanted}
    assert built.dtype == built.config.dtype == wanted
    assert built.language_model.model.rotary_emb.full_attention_inv_freq.dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32
    assert not built.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float23"}, r"dtype 'float23': expected a floating one such as 'float32' or 'bfloat16'"),
        ({"dtype": "int8"}, r"dtype 'int8': expected a floating one"),
        ({"device": "gpu"}, r"device 'gpu': Expected one of cpu, cuda"),
        ({"weights": "petrained"}, r"weights 'petrained': expected None, 'pretrained' or a directory"),
        ({"weights": "pretrained"}, r"small: the language model names no published checkpoint"),
        ({"weights": "pretrained", "device": "meta"}, r"device 'meta' holds no weights"),
        ({"conector": "mlp"}, r"conector: unknown field,.*'connector'"),
    ],
)
def test_an_argument_that_is_wrong_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        vlmkit.build(architecture(), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(SpecError, match="device 'cuda': this machine has no GPU that torch can use"):
        vlmkit.build(architecture(), device="cuda")


def test_a_name_that_is_wrong_is_answered_with_the_nearest() -> None:
    for call in (vlmkit.build, vlmkit.build_processor, vlmkit.architecture):
        with pytest.raises(vlmkit.RegistryError, match=r"unknown model 'univa-lv'; did you mean 'univa-vl'"):
            call("univa-lv")


def test_parts_are_exchanged_while_building() -> None:
    built = vlmkit.build(architecture(), connector="mlp", device="meta")
    assert built.config.spec.connector.kind == "mlp"
    assert all(parameter.is_meta for parameter in built.parameters())


def test_weights_of_a_directory_are_taken_where_its_parts_are_the_same(tmp_path: Path) -> None:
    built = model()
    built.save_pretrained(tmp_path)
    same = architecture().replace(name="another name")
    assert equal(weights(vlmkit.build(same, weights=tmp_path)), weights(built))
    assert {parameter.dtype for parameter in vlmkit.build(same, weights=str(tmp_path), dtype="bfloat16").parameters()} == {torch.bfloat16}
    built.language_model.save_pretrained(tmp_path / "language model")
    with pytest.raises(SpecError, match=r"holds a model of type 'olmo3', not one that vlmkit saved"):
        vlmkit.build(architecture(), weights=tmp_path / "language model")


def test_a_checkpoint_with_other_parts_is_refused_with_both_and_a_way_to_keep_the_rest(tmp_path: Path) -> None:
    built = model()
    built.save_pretrained(tmp_path)
    connector = vlmkit.connectors["mlp"](depth=3)
    with pytest.raises(SpecError, match=r"other parts: connector is conv_patch_merger there, mlp here\.") as refused:
        vlmkit.build(built.config.spec, connector=connector, weights=tmp_path)
    way = re.search("`(for .+)`", str(refused.value))
    assert way is not None
    scope: dict[str, Any] = {"vlmkit": vlmkit, "trained": built, "model": vlmkit.build(built.config.spec, connector=connector)}
    exec(way[1], scope)
    for name in ("encoder", "language_model"):
        assert equal(weights(getattr(scope["model"], name)), weights(getattr(built, name)))
    scope["model"].save_pretrained(tmp_path / "mlp")
    with pytest.raises(SpecError, match=r"parts: policy is smart_resize there, squash here; connector\.depth is 3 there, 2 here\."):
        vlmkit.build(built.config.spec, connector="mlp", policy=vlmkit.policies["squash"](size=56), weights=tmp_path / "mlp")


def test_pretrained_weights_come_from_the_checkpoints_of_encoder_and_language_model_the_connector_is_drawn(tmp_path: Path) -> None:
    donor = model(seed=7)
    donor.language_model.save_pretrained(tmp_path / "language")
    torch.save(donor.encoder.state_dict(), tmp_path / "tower.pt")
    arch = architecture(
        encoder=part(vlmkit.encoders, "open_clip", checkpoint=str(tmp_path / "tower.pt")),
        language=language_model("olmo3").replace(checkpoint=str(tmp_path / "language")),
    )
    built = vlmkit.build(arch, weights="pretrained", seed=1)
    assert equal([*donor.encoder.parameters()], [*built.encoder.parameters()])
    assert equal([*donor.language_model.parameters()], [*built.language_model.parameters()])
    assert not equal([*donor.connector.parameters()], [*built.connector.parameters()])
    assert equal(weights(built), weights(vlmkit.build(arch, weights="pretrained", seed=1)))
    donor.connector.load_state_dict(built.connector.state_dict())
    batch = shared()[1](CONVERSATIONS)
    assert torch.equal(built(**batch).logits, donor(**batch).logits)
    half = vlmkit.build(arch, weights="pretrained", dtype="bfloat16")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_a_checkpoint_of_another_language_model_is_refused_naming_what_differs(tmp_path: Path) -> None:
    donor = model()
    donor.language_model.save_pretrained(tmp_path / "language")
    torch.save(donor.encoder.state_dict(), tmp_path / "tower.pt")
    arch = architecture(
        encoder=part(vlmkit.encoders, "open_clip", checkpoint=str(tmp_path / "tower.pt")),
        language=language_model("olmo3", num_hidden_layers=5).replace(checkpoint=str(tmp_path / "language")),
    )
    with pytest.raises(SpecError, match=r"is not the language model of small; they differ in model\.layers\.4\."):
        vlmkit.build(arch, weights="pretrained")


def test_a_processor_is_built_of_a_name_an_architecture_or_a_directory(tmp_path: Path) -> None:
    processor = shared()[1]
    processor.save_pretrained(tmp_path)
    for source in (architecture(), tmp_path, str(tmp_path)):
        assert vlmkit.build_processor(source).spec == processor.spec
    assert vlmkit.build_processor("univa-vl-tiny").spec == vlmkit.architecture("univa-vl-tiny")
