"""Several towers: each sees the image in its own way, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vlmkit
from tests.tiny import CONVERSATIONS, PROMPTS, apart, architecture, draw, part
from vlmkit.architecture import Architecture, ArchitectureError, VisionTower
from vlmkit.connectors.joined import Joined
from vlmkit.connectors.mlp import Mlp
from vlmkit.model import VLM
from vlmkit.preprocess import Size
from vlmkit.processor import VLMProcessor

SQUARE = part(vlmkit.policies, "squash")
LETTERBOX = part(vlmkit.policies, "letterbox")
PAIRS = {
    "one policy": VisionTower(policy=SQUARE, encoder=part(vlmkit.encoders, "siglip")),
    "its own policy": VisionTower(policy=LETTERBOX, encoder=part(vlmkit.encoders, "siglip")),
    "its own patches": VisionTower(policy=part(vlmkit.policies, "squash", size=64), encoder=part(vlmkit.encoders, "clip", patch=16)),
}
TOLERANCE = 1e-4


def pair(name: str, **changes: Any) -> Architecture:
    first = architecture(policy=SQUARE, connector=Joined(), **changes)
    return first.replace(beside=(PAIRS[name],)).validate()


def small(name: str) -> tuple[VLM, VLMProcessor]:
    arch = pair(name)
    built = vlmkit.build(arch, seed=0)
    draw(built)
    return built, vlmkit.build_processor(arch)


every_pair = pytest.mark.parametrize("name", PAIRS)


@every_pair
def test_towers_share_pixels_where_they_see_the_same_patches(name: str) -> None:
    built, processor = small(name)
    batch = processor(CONVERSATIONS)
    assert ("pixel_values_1" in batch) == ("grids_1" in batch) == (name != "one policy")
    assert len(built.towers) == 2
    tokens = pair(name).tokens(Size(50, 70))
    assert tokens == 16 == int((batch["visual_index"][0] >= 0).sum())


@every_pair
def test_each_tower_moves_the_logits_and_learns(name: str) -> None:
    built, processor = small(name)
    batch = processor(CONVERSATIONS)
    built.train()(**batch).loss.backward()
    for tower in built.towers:
        assert all(parameter.grad is not None and bool(parameter.grad.abs().max() > 0) for parameter in tower.parameters())
    with torch.no_grad():
        before = built.eval()(**batch).logits
        for tower in built.towers:
            weight = next(parameter for parameter in tower.parameters() if parameter.ndim == 4)
            weight.neg_()
            assert apart(built(**batch).logits, before) > 1e-2
            weight.neg_()


@every_pair
def test_rows_are_the_same_alone_padded_and_packed(name: str) -> None:
    built, processor = small(name)
    with torch.no_grad():
        alone = torch.cat([built(**processor(conversation)).logits[0] for conversation in CONVERSATIONS])
        batch = processor(CONVERSATIONS)
        assert apart(built(**batch).logits[batch["attention_mask"].bool()], alone) < TOLERANCE  # measured 4e-6
        packed = {name: value for name, value in processor(CONVERSATIONS, pack=True).items() if name != "labels"}
        assert apart(built(**packed).logits[0], alone) < TOLERANCE


@every_pair
def test_answers_are_the_same_cached_uncached_and_by_beams(name: str) -> None:
    built, processor = small(name)
    batch = processor(PROMPTS)
    options: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    greedy = built.generate(**batch, **options)
    assert torch.equal(built.generate(**batch, **options, use_cache=False), greedy)
    beams = built.generate(**batch, **options, num_beams=2)
    for number, prompt in enumerate(PROMPTS):
        one = processor(prompt)
        length = one["input_ids"].shape[1]
        assert built.generate(**one, **options)[0, length:].tolist() == greedy[number, -4:].tolist()
        assert built.generate(**one, **options, num_beams=2)[0, length:].tolist() == beams[number, -4:].tolist()


@every_pair
def test_it_is_saved_and_read_again(name: str, tmp_path: Path) -> None:
    built, processor = small(name)
    built.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = vlmkit.load(tmp_path)
    assert again.spec == built.spec == Architecture.from_json(built.spec.to_json())
    assert torch.equal(again(**reader(CONVERSATIONS)).logits, built(**processor(CONVERSATIONS)).logits)


def test_parameters_are_counted_over_all_towers() -> None:
    arch = pair("its own patches")
    built = vlmkit.build(arch, device="meta")
    assert arch.parameters().encoder == sum(parameter.numel() for parameter in built.encoder.parameters())
    assert arch.parameters().total == built.num_parameters()


def test_what_does_not_go_together_is_said_before_anything_is_built() -> None:
    with pytest.raises(ArchitectureError, match=r"'mlp' takes the features of 1 tower\(s\), but the architecture has 2"):
        pair("one policy").replace(connector=Mlp()).validate()
    tiles = VisionTower(policy=part(vlmkit.policies, "anyres"), encoder=part(vlmkit.encoders, "siglip"))
    with pytest.raises(ArchitectureError, match=r"towers see different numbers of views of an image of 480x640: 1 \(squash\), "):
        pair("one policy").replace(beside=(tiles,)).validate()
    other = VisionTower(policy=part(vlmkit.policies, "squash", size=84), encoder=part(vlmkit.encoders, "siglip"))
    with pytest.raises(ArchitectureError, match="the towers' grids of a view are 4x4 and 6x6"):
        pair("one policy").replace(beside=(other,)).validate()
