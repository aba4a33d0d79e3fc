"""Every parameter belongs to exactly one part, learns when its part does, and is moved only then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import vlmkit
from tests.tiny import CONVERSATIONS, draw, model
from vlmkit.architecture import PARTS, Architecture
from vlmkit.fusion.base import Fusion
from vlmkit.model import VLM
from vlmkit.spec import SpecError
from vlmkit.training.optimizers import build_optimizers, prepare_parts, refuse_unclaimed
from vlmkit.training.stage import Source, Stage

TINY = [name for name in vlmkit.list_models() if name.endswith("-tiny")]


def test_there_are_this_many_tiny_models() -> None:
    assert len(TINY) >= 15


def all_learn() -> Stage:
    return Stage(name="all", steps=3, batch_size=1, data=(Source(name="any"),), **dict.fromkeys(PARTS, 1e-2))


@pytest.mark.parametrize("name", TINY)
def test_each_parameter_is_in_exactly_one_part(name: str) -> None:
    built = vlmkit.build(name, device="meta")
    owners = {
        parameter: [part for part in PARTS if any(own is value for own in getattr(built, part).parameters())]
        for parameter, value in built.named_parameters()
    }
    assert {parameter: owner for parameter, owner in owners.items() if len(owner) != 1} == {}


@pytest.mark.parametrize("name", TINY)
def test_a_stage_in_which_every_part_learns_moves_every_parameter_that_is_not_frozen(name: str) -> None:
    built, processor = vlmkit.build(name, seed=0).train(), vlmkit.build_processor(name)
    draw(built)
    stage, parts = all_learn(), {part: getattr(built, part) for part in PARTS}
    frozen = {name for name, parameter in built.named_parameters() if not parameter.requires_grad}
    prepare_parts(stage, parts)
    assert {name for name, parameter in built.named_parameters() if not parameter.requires_grad} == frozen
    optimizers = build_optimizers(stage, parts, fused=False)
    before = {name: parameter.detach().clone() for name, parameter in built.named_parameters()}
    for _ in range(stage.steps):
        built(**processor(CONVERSATIONS)).loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    still = {name for name, parameter in built.named_parameters() if torch.equal(parameter, before[name])}
    assert still == frozen
    assert {name for name, parameter in built.named_parameters() if parameter.grad is not None} == set()


@pytest.mark.parametrize("name", TINY)
def test_what_is_frozen_is_what_no_loss_ever_reaches(name: str) -> None:
    built, processor = vlmkit.build(name, seed=0).train(), vlmkit.build_processor(name)
    draw(built)
    frozen = [parameter for parameter in built.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    built(**processor(CONVERSATIONS)).loss.backward()
    assert all(parameter.grad is None for parameter in frozen)


def test_a_directory_of_before_learned_embeddings_were_the_fusions_is_read_and_saved_with_todays_names(tmp_path: Path) -> None:
    built = model(vlmkit.architecture("llava-1.6-tiny"))
    built.save_pretrained(tmp_path / "now")
    names = load_file(tmp_path / "now" / "model.safetensors")
    (tmp_path / "before").mkdir()
    for file in (tmp_path / "now").glob("*.json"):
        (tmp_path / "before" / file.name).write_bytes(file.read_bytes())
    old = {name.replace("fusion.learned.", "learned."): tensor for name, tensor in names.items()}
    assert "learned.newline" in old
    save_file(old, tmp_path / "before" / "model.safetensors", {"format": "pt"})
    for again in (vlmkit.build("llava-1.6-tiny", weights=tmp_path / "before"), VLM.from_pretrained(tmp_path / "before")):
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in built.state_dict().items())
        again.save_pretrained(tmp_path / "again")
        assert load_file(tmp_path / "again" / "model.safetensors").keys() == names.keys()


def test_pretrained_weights_leave_nothing_on_the_meta_device(tmp_path: Path) -> None:
    whole = model(vlmkit.architecture("llava-1.6-tiny"))
    tower = whole.spec.encoder
    whole.encoder.to(torch.float32)
    language_model = whole.language_model
    language_model.save_pretrained(tmp_path / "language_model")
    from transformers import CLIPVisionConfig, CLIPVisionModel

    published = CLIPVisionModel(CLIPVisionConfig(**tower.numbers()))
    published.save_pretrained(tmp_path / "tower")
    arch: Architecture = whole.spec.replace(
        encoder=tower.replace(checkpoint=str(tmp_path / "tower")),
        language_model=whole.spec.language_model.replace(checkpoint=str(tmp_path / "language_model")),
    )
    built = vlmkit.build(arch, weights="pretrained", seed=0)
    assert not any(parameter.is_meta for parameter in built.parameters())
    assert built.fusion.learned.newline.abs().max() > 0


def test_a_fusion_from_elsewhere_that_owns_no_learned_embeddings_is_refused_where_the_layout_has_some() -> None:
    @vlmkit.fusions.register("bare")
    @dataclass(frozen=True, kw_only=True)
    class Bare(Fusion):
        def build(self, language_model: object, layout: object) -> Any:
            return nn.Module()

    with pytest.raises(SpecError, match=r"layout 'unpadded_rows' has learned embeddings \(newline\), but fusion 'bare' owns none"):
        vlmkit.build("llava-1.6-tiny", fusion=Bare())


def test_a_parameter_that_no_part_claims_is_named(tmp_path: Path) -> None:
    built = vlmkit.build("univa-vl-tiny", seed=0)
    built.extra = nn.Linear(2, 2)
    with pytest.raises(SpecError, match=r"extra\.weight, extra\.bias belong to no part of encoder, connector, fusion, language_model"):
        refuse_unclaimed(built, {part: getattr(built, part) for part in PARTS})
