"""Prefix: images and prompt see each other in both directions, the answer looks back, and no way of batching or generating
changes what a row sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import CONVERSATIONS, LANGUAGE_MODELS, PROMPTS, apart, architecture, assistant, encoded_views, model, picture, user
from vlmkit.architecture import Architecture
from vlmkit.build import build_processor
from vlmkit.cache_name import CACHE
from vlmkit.fusion.incoming import FusionError
from vlmkit.fusion.prefix_module import blocks
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor

TOLERANCE = 1e-4
"""Of logits in float32, the largest of which is between 1 and 10."""
NEW = 6
ATTENTION = [(name, language) for name in ("eager", "sdpa") for language in LANGUAGE_MODELS if (name, language) != ("sdpa", "gemma2")]
"""Gemma 2 caps its attention, which sdpa cannot."""


def small(language: str, attention: str | None = None, fusion: str = "prefix") -> tuple[VLM, VLMProcessor]:
    arch: Architecture = architecture(language=language, fusion=fusion)
    built = model(arch)
    if attention is not None:
        built.set_attn_implementation(attention)
        assert built.language_model.config._attn_implementation == attention
    return built, build_processor(arch)


def without_labels(batch: Any) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name != "labels"}


def answers(built: VLM, batch: Any, **options: Any) -> list[list[int]]:
    """Generated tokens, without the padding behind an end."""
    ids = built.generate(**batch, **({"max_new_tokens": NEW, "do_sample": False} | options))
    return [[token for token in row if token != 256] for row in ids[:, batch["input_ids"].shape[1] :].tolist()]


@pytest.mark.parametrize(("attention", "language"), ATTENTION)
def test_a_row_has_the_same_logits_alone_padded_on_either_side_and_packed(attention: str, language: str) -> None:
    """Sliding windows are 8 tokens, every prefix is longer."""
    built, processor = small(language, attention)
    with torch.no_grad():
        alone = [built(**processor(conversation)).logits[0] for conversation in CONVERSATIONS]
        packed = built(**without_labels(processor(CONVERSATIONS, pack=True))).logits[0]
        assert apart(packed, torch.cat(alone)) < TOLERANCE  # measured 4e-6
        for side in ("left", "right"):
            batch = processor(CONVERSATIONS, padding_side=side)
            padded = built(**batch).logits[batch["attention_mask"].bool()]
            assert apart(padded, torch.cat(alone)) < TOLERANCE  # measured 4e-6


@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_the_prefix_sees_what_follows_in_it_and_the_answer_only_what_came_before(language: str) -> None:
    built, processor = small(language)
    batch = processor([user("ab", picture(), "cd"), assistant("efgh")])
    prefix = int((batch["token_type_ids"] == 0).sum())
    with torch.no_grad():
        before = built(**batch).logits[0]

        def moved(place: int) -> Tensor:
            """How far each position's logits move with the token at `place`."""
            ids = batch["input_ids"].clone()
            ids[0, place] += 1
            return (built(**{**batch, "input_ids": ids}).logits[0] - before).abs().amax(dim=1)

        last_of_prompt, in_answer = moved(prefix - 1), moved(prefix + 2)
    assert bool((last_of_prompt[:prefix] > 1e-4).all())
    assert not bool(in_answer[: prefix + 2].any())
    assert bool((in_answer[prefix + 2 :] > 1e-4).all())


def test_packed_samples_do_not_see_each_other_whatever_the_mode() -> None:
    built, processor = small("olmo3")
    other = [[user("Something else altogether, without any picture"), assistant("No.")], *CONVERSATIONS[1:]]
    sizes = [processor(conversation)["input_ids"].shape[1] for conversation in (CONVERSATIONS[0], other[0])]
    for training in (False, True):
        built.train(training)
        ends = [
            built(**without_labels(processor(rows, pack=True))).logits[0, size:]
            for rows, size in zip((CONVERSATIONS, other), sizes, strict=True)
        ]
        assert apart(*ends) < TOLERANCE  # measured 1e-6


@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_greedy_answers_are_the_same_alone_and_in_a_batch_with_and_without_a_cache_and_by_hand(language: str) -> None:
    built, processor = small(language)
    batch = processor(PROMPTS)
    together = answers(built, batch)
    assert answers(built, batch, use_cache=False) == together
    assert answers(built, batch, cache_implementation="static") == together
    for number, prompt in enumerate(PROMPTS):
        assert answers(built, processor(prompt)) == [together[number]]
    rows = processor(PROMPTS[0])
    by_hand: list[int] = []
    with torch.no_grad():
        while len(by_hand) < NEW and not {257, 259}.intersection(by_hand):
            more = torch.tensor([by_hand], dtype=torch.long)
            behind = rows["position_ids"].max() + 1 + torch.arange(len(by_hand))
            logits = built(
                torch.cat([rows["input_ids"], more], dim=1),
                position_ids=torch.cat([rows["position_ids"], behind.expand(*rows["position_ids"].shape[:-1], -1)], dim=-1),
                visual_index=torch.cat([rows["visual_index"], torch.full_like(more, -1)], dim=1),
                token_type_ids=torch.cat([rows["token_type_ids"], torch.ones_like(more)], dim=1),
                pixel_values=rows["pixel_values"],
                grids=rows["grids"],
            ).logits
            by_hand.append(int(logits[0, -1].argmax()))
    assert by_hand == together[0]


def test_answers_differ_from_those_of_a_causal_prompt() -> None:
    built, processor = small("llama")
    causal, _ = small("llama", fusion="splice")
    causal.load_state_dict(built.state_dict())
    batch = processor(PROMPTS)
    others = {name: value for name, value in batch.items() if name != "token_type_ids"}
    with torch.no_grad():
        assert apart(built(**batch).logits[:, -1], causal(**others).logits[:, -1]) > 0.1


def test_cached_logits_are_the_uncached_ones() -> None:
    built, processor = small("gemma2")
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    batch = processor(PROMPTS)
    cached, uncached = (built.generate(**batch, **options, use_cache=use_cache) for use_cache in (True, False))
    assert torch.equal(cached.sequences, uncached.sequences)
    for first, second in zip(cached.logits, uncached.logits, strict=True):
        assert apart(first, second) < TOLERANCE  # measured 5e-6


@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_share_an_image_and_are_those_of_one_prompt_at_a_time(use_cache: bool) -> None:
    built, processor = small("gemma")
    options: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 4, "use_cache": use_cache}
    seen = encoded_views(built)
    together = answers(built, processor(PROMPTS), min_new_tokens=4, **options)
    assert seen == [5] * (1 if use_cache else 4)
    assert together == [row for prompt in PROMPTS for row in answers(built, processor(prompt), min_new_tokens=4, **options)]


def test_prompt_lookup_gives_the_greedy_answer() -> None:
    """Several tokens are tried at once: they are no part of the prefix."""
    built, processor = small("llama")
    for prompt in (PROMPTS[1], PROMPTS[3]):
        batch = processor(prompt)
        assert answers(built, batch, max_new_tokens=12, prompt_lookup_num_tokens=3) == answers(built, batch, max_new_tokens=12)


def test_a_second_turn_goes_on_from_the_cache_of_the_first() -> None:
    built, processor = small("llama")
    first = [user(picture(seed=1), "one?")]
    begun = processor(first)
    out = built.generate(**begun, max_new_tokens=2, min_new_tokens=2, do_sample=False, return_dict_in_generate=True)
    whole = processor([*first, assistant("ab"), user(picture(seed=2), "two?")])
    fresh = answers(built, whole)
    cache = out[CACHE]
    cache.crop(begun["input_ids"].shape[1] - cache.get_seq_length())
    seen = encoded_views(built)
    assert answers(built, whole, **{CACHE: cache}) == fresh
    assert seen == [2]


def test_the_packed_loss_and_its_gradients_are_those_of_the_padded_rows() -> None:
    built, processor = small("gemma2")
    found = []
    for batch in (processor(CONVERSATIONS), processor(CONVERSATIONS, pack=True)):
        built.train().zero_grad()
        loss = built(**batch).loss
        loss.backward()
        found.append((loss, {name: parameter.grad.clone() for name, parameter in built.named_parameters()}))
    (padded, first), (packed, second) = found
    assert apart(padded, packed) < 1e-5
    assert max(apart(first[name], second[name]) / (float(first[name].abs().max()) + 1e-3) for name in first) < 1e-3  # measured 2e-6


def test_each_prefix_of_a_row_is_a_block() -> None:
    types = torch.tensor([[0, 0, 1, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]])
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, -1], [0, 1, 1, 1, 1, 1, 1]])
    assert blocks(types, segments).tolist() == [[0, 0, -1, 1, -1, -1, -1], [0, 1, 1, -1, -1, -1, -1]]
    assert blocks(types, None).tolist() == [[0, 0, -1, 0, -1, -1, 0], [0, 0, 0, -1, -1, -1, -1]]


def test_a_batch_that_does_not_say_its_prefix_is_refused() -> None:
    built, processor = small("llama")
    batch = {name: value for name, value in processor(PROMPTS).items() if name != "token_type_ids"}
    with pytest.raises(FusionError, match="needs token_type_ids, 0 in the prefix and 1 behind it"):
        built(**batch)


def test_half_a_prefix_behind_a_cache_is_refused() -> None:
    built, processor = small("llama")
    batch = processor(PROMPTS[1])
    with pytest.raises(FusionError, match="20 tokens of the prefix come behind 20 cached ones"):
        built.generate(**batch, max_new_tokens=1, prefill_chunk_size=20)


def test_an_attention_without_such_masks_is_refused() -> None:
    built, processor = small("llama")
    built.language_model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(FusionError, match="flash_attention_2 has no mask for a prefix"):
        built(**processor(PROMPTS))


def test_the_processor_names_what_the_fusion_needs() -> None:
    _, processor = small("llama")
    assert set(processor(PROMPTS).keys()) == set(processor.model_input_names)
