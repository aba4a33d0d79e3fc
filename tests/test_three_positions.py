"""Positions by time, row and column, from the batch to the answer: whatever a row stands in, its tokens turn as they do alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import vlmkit
from tests.tiny import CONVERSATIONS, PROMPTS, apart, architecture, assistant, encoded_views, model, picture, user
from vlmkit.cache_name import CACHE
from vlmkit.fusion.base import FusionError
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor

NEW = 6
TOLERANCE = 1e-4
"""Measured 5e-6 in logits of size 5."""
LAYOUTS = ("run", "bracketed", "rows", "images_first", "tile_tags", "unpadded_rows")


def small(layout: str = "bracketed", **parts: Any) -> tuple[VLM, VLMProcessor]:
    kinds = {"encoder": "qwen2_vl", "connector": "patch_merger", "language": "qwen2_vl_text"}
    arch = architecture(layout=layout, **(kinds | parts))
    return model(arch), vlmkit.build_processor(arch)


@pytest.fixture(scope="module")
def pair() -> tuple[VLM, VLMProcessor]:
    return small()


def positions_seen(built: VLM) -> list[Tensor]:
    """A list that grows by what the language model is told at each call."""
    seen: list[Tensor] = []
    built.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"].clone()), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize("layout", LAYOUTS)
def test_padded_and_packed_rows_have_the_positions_and_logits_of_each_alone(layout: str) -> None:
    built, processor = small(layout)
    alone = [processor(conversation) for conversation in CONVERSATIONS]
    with torch.no_grad():
        logits = [built(**row).logits[0] for row in alone]
    for side in ("left", "right"):
        batch = processor(CONVERSATIONS, padding_side=side)
        assert batch["position_ids"].shape == (3, *batch["input_ids"].shape)
        stands = batch["attention_mask"].bool()
        assert torch.equal(batch["position_ids"][:, stands], torch.cat([row["position_ids"][:, 0] for row in alone], dim=1))
        with torch.no_grad():
            assert apart(built(**batch).logits[stands], torch.cat(logits)) < TOLERANCE
    packed = processor(CONVERSATIONS, pack=True)
    assert torch.equal(packed["position_ids"][:, 0], torch.cat([row["position_ids"][:, 0] for row in alone], dim=1))
    with torch.no_grad():
        assert apart(built(**{name: packed[name] for name in packed if name != "labels"}).logits[0], torch.cat(logits)) < TOLERANCE
    rows, columns = alone[0]["position_ids"][1:, 0]
    assert not torch.equal(rows, columns), "a picture that has both, or the test tells nothing"


def test_rows_and_columns_move_the_logits(pair: tuple[VLM, VLMProcessor]) -> None:
    built, processor = pair
    batch = processor(CONVERSATIONS[0])
    time, rows, columns = batch["position_ids"]
    with torch.no_grad():
        turned = built(**{**batch, "position_ids": torch.stack([time, columns, rows])}).logits
        assert apart(turned, built(**batch).logits) > 1e-2


def test_samples_of_a_batch_that_does_not_state_its_segments_begin_where_all_three_do(pair: tuple[VLM, VLMProcessor]) -> None:
    built, processor = pair
    packed = processor(CONVERSATIONS, pack=True)
    foreign = {name: packed[name] for name in ("input_ids", "position_ids", "visual_index", "pixel_values", "grids")}
    with torch.no_grad():
        alone = torch.cat([built(**processor(conversation)).logits[0] for conversation in CONVERSATIONS])
        assert apart(built(**foreign).logits[0], alone) < TOLERANCE


def test_images_without_their_positions_are_refused(pair: tuple[VLM, VLMProcessor]) -> None:
    built, processor = pair
    batch = dict(processor(CONVERSATIONS[0]))
    plain = torch.arange(batch["input_ids"].shape[1])[None]
    for positions in (None, plain):
        with pytest.raises(FusionError, match=r"'qwen2_vl_text' turns by time, row and column, .* pass position_ids \(3, B, S\)"):
            built(**batch | {"position_ids": positions})
    words = {"input_ids": batch["input_ids"], "position_ids": plain}
    with torch.no_grad():
        assert apart(built(**words).logits, built(input_ids=batch["input_ids"]).logits) < TOLERANCE


def test_answers_are_those_of_each_row_alone_with_any_cache_or_none_and_with_words_looked_up(
    pair: tuple[VLM, VLMProcessor],
) -> None:
    built, processor = pair
    batch = processor(PROMPTS)
    options: dict[str, Any] = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    together = built.generate(**batch, **options)[:, -NEW:]
    assert torch.equal(built.generate(**batch, **options, use_cache=False)[:, -NEW:], together)
    assert torch.equal(built.generate(**batch, **options, cache_implementation="static")[:, -NEW:], together)
    for number, prompt in enumerate(PROMPTS):
        for more in ({}, {"prompt_lookup_num_tokens": 3}):
            assert torch.equal(built.generate(**processor(prompt), **options, **more)[0, -NEW:], together[number])


def test_what_is_generated_goes_on_behind_the_largest_position_even_where_a_picture_ends_the_prompt() -> None:
    built, processor = small()
    prompt = dict(processor([[user("a", picture(seed=1))]]))
    last = int((prompt["visual_index"][0] >= 0).nonzero().max())
    prompt = {name: value[..., : last + 1] if value.shape[-1] > last and "pixel" not in name else value for name, value in prompt.items()}
    largest = int(prompt["position_ids"].max())
    assert int(prompt["position_ids"][0, 0, -1]) < largest
    seen = positions_seen(built)
    cached = built.generate(**prompt, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert [told[:, 0].tolist() for told in seen[1:]] == [[[largest + 1]] * 3, [[largest + 2]] * 3]
    uncached = built.generate(**prompt, max_new_tokens=3, min_new_tokens=3, do_sample=False, use_cache=False)
    assert torch.equal(seen[-1][..., : last + 1], prompt["position_ids"])
    assert torch.equal(cached, uncached)


def test_beam_search_finds_the_best_of_all_continuations(pair: tuple[VLM, VLMProcessor]) -> None:
    """As many beams as words, and the score of every continuation of two tokens by hand."""
    built, processor = pair
    allowed = list(range(97, 103))
    for prompt in PROMPTS:
        batch = processor(prompt)
        length = batch["input_ids"].shape[1]
        beams: dict[str, Any] = {"num_beams": len(allowed), "do_sample": False, "eos_token_id": 257, "length_penalty": 0.0}
        found = built.generate(**batch, max_new_tokens=2, prefix_allowed_tokens_fn=lambda number, ids: allowed, **beams)[0, length:]
        pairs = torch.tensor([[first, second] for first in allowed for second in allowed])
        ids = torch.cat([batch["input_ids"].expand(len(pairs), -1), pairs], dim=1)
        index = torch.cat([batch["visual_index"].expand(len(pairs), -1), torch.full_like(pairs, -1)], dim=1)
        behind = batch["position_ids"].max() + 1 + torch.arange(2)
        positions = torch.cat([batch["position_ids"].expand(3, len(pairs), -1), behind.expand(3, len(pairs), 2)], dim=2)
        pixels = {name: batch[name] for name in ("pixel_values", "grids") if name in batch}
        with torch.no_grad():
            logits = built(ids, visual_index=index, position_ids=positions, **pixels).logits[:, length - 1 : length + 1]
        best = logits.log_softmax(dim=-1).gather(2, pairs[..., None]).sum(dim=(1, 2)).argmax()
        assert found.tolist() == pairs[best].tolist()


def test_several_answers_are_those_of_the_repeated_prompt(pair: tuple[VLM, VLMProcessor]) -> None:
    built, processor = pair
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": True}
    torch.manual_seed(0)
    shared = built.generate(**processor(PROMPTS[2]), num_return_sequences=3, **options)
    torch.manual_seed(0)
    assert torch.equal(shared, built.generate(**processor([PROMPTS[2]] * 3), **options))


def test_a_second_turn_that_adds_an_image_goes_on_from_the_cache_of_the_first() -> None:
    built, processor = small()
    first = [user(picture(seed=1), "one?")]
    begun = processor(first)
    out = built.generate(**begun, max_new_tokens=2, min_new_tokens=2, do_sample=False, return_dict_in_generate=True)
    whole = processor([*first, assistant("ab"), user(picture(90, 40, seed=2), "two?")])
    fresh = built.generate(**whole, max_new_tokens=NEW, do_sample=False)
    cache = out[CACHE]
    cache.crop(begun["input_ids"].shape[1] - cache.get_seq_length())
    views, seen = encoded_views(built), positions_seen(built)
    again = built.generate(**whole, **{CACHE: cache}, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(again, fresh)
    assert views == [2]
    assert torch.equal(seen[0], whole["position_ids"][..., begun["input_ids"].shape[1] :])


def test_a_step_of_training_on_packed_rows_has_the_loss_of_the_rows_alone(pair: tuple[VLM, VLMProcessor]) -> None:
    built, processor = pair
    packed = processor(CONVERSATIONS, pack=True)
    alone = [processor(conversation) for conversation in CONVERSATIONS]
    counts = [int((row["labels"][:, 1:] >= 0).sum()) for row in alone]
    with torch.no_grad():
        built.train()
        together = float(built(**packed).loss)
        losses = [float(built(**row).loss) for row in alone]
        built.eval()
    assert together == pytest.approx(sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts), abs=1e-5)
