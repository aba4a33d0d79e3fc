"""Systems whose reference is assembled from published parts, small and with the same weights: one law a test, one system a row."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from families import llava_v1, llm2clip, moe_llava, nvlm, omnivlm, yi_vl
from families.assembled import Assembled
from families.record import record
from families.system import patchify, user
from families.tiny import picture as smooth
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import vlmkit
from tests.families.trained import assert_it_trains
from tests.tiny import apart, draw, picture
from vlmkit.model import VLM
from vlmkit.preprocess import Size
from vlmkit.preprocess.pixels import render
from vlmkit.preprocess.policies.pad_square import PadSquare
from vlmkit.processor import VLMProcessor

ASSEMBLED = (llava_v1.PARTS, llm2clip.PARTS, moe_llava.PARTS, nvlm.PARTS, nvlm.X_PARTS, nvlm.H_PARTS, omnivlm.PARTS, yi_vl.PARTS)
every_system = pytest.mark.parametrize("parts", ASSEMBLED, ids=lambda parts: parts.row.tiny)


@cache
def built(parts: Assembled) -> tuple[VLM, VLMProcessor]:
    model = vlmkit.build(parts.row.tiny, seed=0).eval()
    draw(model)
    return model, vlmkit.build_processor(parts.row.tiny, tokenizer=parts.tokenizer())


def views_of(model: VLM, batch: dict[str, Tensor]) -> Tensor:
    """The batch's patches, normalised, as views (n, 3, S, S)."""
    patch, side = model.config.spec.encoder.patch_size, int(batch["grids"][0, 1])
    patches = model.encoder.normalise(batch["pixel_values"]).reshape(-1, side, side, 3, patch, patch)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, side * patch, side * patch)


@every_system
def test_logits_and_the_greedy_answer_are_those_of_the_parts_put_together(parts: Assembled) -> None:
    model, processor = built(parts)
    worst = 0.0
    for images in ([picture(40, 52)], [picture(64, 33, 1), picture(28, 28, 2)]):
        batch = processor([[user("What is this?", *images)]], add_generation_prompt=True)
        wanted, decoder, embeddings = parts.logits(
            model, views_of(model, batch), batch["input_ids"][0], [image.shape[:2] for image in images]
        )
        with torch.no_grad():
            worst = max(worst, apart(model(**batch).logits[0], wanted))
        limit = {"max_new_tokens": 8, "do_sample": False}
        mask = torch.ones(embeddings.shape[:2], dtype=torch.long)
        expected = decoder.generate(inputs_embeds=embeddings, attention_mask=mask, **limit)[0]
        found = model.generate(**batch, **limit)[0, batch["input_ids"].shape[1] :]
        assert found.tolist() == expected.tolist()
    assert worst < 1e-4
    record(parts.row, logits=worst, generates=True)


@every_system
def test_the_image_moves_the_logits(parts: Assembled) -> None:
    model, processor = built(parts)
    one, other = (processor([[user("What?", picture(40, 52, seed))]], add_generation_prompt=True) for seed in (1, 2))
    with torch.no_grad():
        assert apart(model(**one).logits, model(**other).logits) > 1e-2


@every_system
def test_the_prompt_is_the_published_one(parts: Assembled) -> None:
    _, processor = built(parts)
    spec = processor.spec
    places = spec.layout.placeholder * spec.tokens(Size(30, 70))
    asked = [user("Where?", picture(30, 70))]
    ids = processor([asked], add_generation_prompt=True)["input_ids"][0]
    text = parts.prompt(places, "Where?")
    assert processor.decode(ids) == text
    assert ids.tolist() == parts.tokenizer()(text, add_special_tokens=False)["input_ids"]
    answered = processor([[*asked, {"role": "assistant", "content": "Here."}]])
    assert processor.decode(answered["input_ids"][0]) == parts.answered(places, "Where?", "Here.")
    record(parts.row, layout=True)


@every_system
def test_pixels_are_those_of_the_published_preprocessing(parts: Assembled) -> None:
    arch = vlmkit.architecture(next(iter(parts.row.counts)))
    encoder, policy = arch.encoder, arch.policy
    std = torch.tensor(encoder.std).repeat_interleave(encoder.patch_size**2)
    mean = torch.tensor(encoder.mean).repeat_interleave(encoder.patch_size**2)
    worst = 0.0

    @settings(max_examples=12, deadline=None)
    @given(st.integers(20, 400), st.integers(20, 400))
    def compare(height: int, width: int) -> None:
        nonlocal worst
        photo = smooth(height, width)
        plan = arch.plan(Size(height, width))
        values, _ = render(photo, plan, patch=encoder.patch_size, resample=policy.resample, antialias=policy.antialias)
        views = parts.pixels(photo)
        theirs = torch.cat([patchify(view, encoder.patch_size) for view in views.reshape(-1, *views.shape[-3:])])
        differ = ((values / 255 - mean) / std - theirs) * std * 255
        worst = max(worst, float(differ.abs().max()))

    compare()
    assert worst <= 2.01, worst
    record(parts.row, pixels=worst)


@every_system
def test_published_sizes(parts: Assembled) -> None:
    for name, counts in parts.row.counts.items():
        arch = vlmkit.architecture(name)
        assert arch.parameters() == counts, name
        assert arch.tokens(Size(480, 640)) == parts.visual_tokens
        with torch.device("meta"):
            decoder = parts.decoder(arch.language_model.transformers_config())
            tower = parts.empty_tower(arch)
        assert count(decoder) == counts.language_model
        assert count(tower) == counts.encoder + parts.beside()
    totals = {name: counts.total for name, counts in parts.row.counts.items()}
    record(parts.row, builds=len(totals), parameters=totals)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_omnivlm_has_its_968_400_704_parameters_with_the_head_that_nobody_reads() -> None:
    assert omnivlm.ROW.counts["omnivlm-968m"].total + omnivlm.pooling_head() == 968_400_704


def test_yi_vls_first_stage_sees_224_pixels() -> None:
    arch = vlmkit.architecture("yi-vl-6b")
    first = arch.replace(policy=PadSquare(size=224), encoder=arch.encoder.replace(image_size=224)).validate()
    assert (first.tokens(Size(480, 640)), arch.tokens(Size(480, 640))) == (256, 1024)
    assert arch.parameters().encoder - first.parameters().encoder == (1024 - 256) * 1280, "the table of positions alone"


@every_system
def test_it_trains_a_step(parts: Assembled) -> None:
    _, processor = built(parts)
    model = vlmkit.build(parts.row.tiny, seed=0)
    batch = processor([[user("What is this?", picture(28, 28)), {"role": "assistant", "content": "A picture."}]])
    assert_it_trains(model, batch)
    record(parts.row, trains=True)
