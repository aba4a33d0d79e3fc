"""Several towers: each sees the image in its own way, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vlmkit
from tests.tiny import CONVERSATIONS, PROMPTS, apart, architecture, assistant, draw, part, picture, user
from vlmkit.architecture import Architecture, ArchitectureError, VisionTower
from vlmkit.cache_name import CACHE
from vlmkit.checkpoints import export
from vlmkit.connectors.joined import Joined
from vlmkit.connectors.mlp import Mlp
from vlmkit.model import VLM
from vlmkit.preprocess import Size
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError

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


def small_llama(name: str) -> tuple[VLM, VLMProcessor]:
    """Of a language model whose cache can be cut back."""
    arch = pair(name, language="llama")
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


@every_pair
def test_a_second_turn_goes_on_from_the_cache_of_the_first(name: str) -> None:
    built, processor = small_llama(name)
    first = [user(picture(seed=1), "one?")]
    begun = processor(first)
    out = built.generate(**begun, max_new_tokens=2, min_new_tokens=2, do_sample=False, return_dict_in_generate=True)
    whole = processor([*first, assistant("ab"), user(picture(60, 60, 2), "two?")])
    fresh = built.generate(**whole, max_new_tokens=4, do_sample=False)
    cache = out[CACHE]
    cache.crop(begun["input_ids"].shape[1] - cache.get_seq_length())
    assert torch.equal(built.generate(**whole, **{CACHE: cache}, max_new_tokens=4, do_sample=False), fresh)


@every_pair
def test_without_images_every_tower_runs_on_a_blank_view_that_teaches_it_nothing(name: str) -> None:
    built, processor = small(name)
    batch = processor(CONVERSATIONS[1])
    assert not any(entry.startswith("pixel_values") for entry in batch)
    loss = built.train()(**batch).loss
    loss.backward()
    gradients = [parameter.grad for tower in built.towers for parameter in tower.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
    assert apart(built.eval()(**batch).loss, loss) < 1e-6


@every_pair
def test_a_step_moves_every_parameter_of_every_tower(name: str) -> None:
    built, processor = small(name)
    before = {parameter: value.clone() for parameter, value in built.named_parameters()}
    optimizer = torch.optim.AdamW(built.parameters(), lr=1e-3, weight_decay=0.0)
    built.train()(**processor(CONVERSATIONS)).loss.backward()
    optimizer.step()
    assert [parameter for parameter, value in built.named_parameters() if torch.equal(value, before[parameter])] == []
    assert {parameter.split(".")[1] for parameter in before if parameter.startswith("encoder.")} == {"0", "1"}


def test_no_published_class_has_a_second_tower(tmp_path: Path) -> None:
    one = vlmkit.architecture("llava-1.5-tiny")
    two = one.replace(connector=Joined(inner=one.connector), beside=(VisionTower(policy=one.policy, encoder=one.encoder),))
    with pytest.raises(SpecError, match="joined"):
        export(vlmkit.build(two, seed=0), vlmkit.build_processor(two), tmp_path / "out")
    assert not (tmp_path / "out").exists()


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
