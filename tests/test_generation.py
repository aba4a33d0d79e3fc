"""`generate` as transformers users know it, with images encoded once however many answers are asked for."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor

import vlmkit
from tests.tiny import LANGUAGE_MODELS, PROMPTS, apart, architecture, assistant, encoded_views, model, picture, shared, user
from vlmkit.cache_name import CACHE

NEW = 6


def answers(ids: Tensor, prompt: Tensor) -> list[list[int]]:
    """Generated tokens, without the padding behind an end."""
    return [[token for token in row if token != 256] for row in ids[:, prompt.shape[1] :].tolist()]


@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_greedy_answers_are_the_same_alone_and_in_a_batch_with_and_without_a_cache_and_by_hand(language: str) -> None:
    arch = architecture(language=language)
    built, processor = model(arch), vlmkit.build_processor(arch)
    batch = processor(PROMPTS)
    together = answers(built.generate(**batch, max_new_tokens=NEW, do_sample=False), batch["input_ids"])
    uncached = answers(built.generate(**batch, max_new_tokens=NEW, do_sample=False, use_cache=False), batch["input_ids"])
    assert uncached == together
    for number, prompt in enumerate(PROMPTS):
        alone = processor(prompt)
        assert answers(built.generate(**alone, max_new_tokens=NEW, do_sample=False), alone["input_ids"]) == [together[number]]
    rows = processor(PROMPTS[0])
    by_hand: list[int] = []
    with torch.no_grad():
        while len(by_hand) < NEW and not {257, 259}.intersection(by_hand):
            more = torch.tensor([by_hand], dtype=torch.long)
            ids = torch.cat([rows["input_ids"], more], dim=1)
            index = torch.cat([rows["visual_index"], torch.full_like(more, -1)], dim=1)
            behind = rows["position_ids"].max() + 1 + torch.arange(len(by_hand))
            positions = torch.cat([rows["position_ids"], behind.expand(*rows["position_ids"].shape[:-1], -1)], dim=-1)
            given = {"visual_index": index, "position_ids": positions, "pixel_values": rows["pixel_values"], "grids": rows["grids"]}
            logits = built(ids, **given).logits
            by_hand.append(int(logits[0, -1].argmax()))
    assert by_hand == together[0]


def test_cached_logits_are_the_uncached_ones() -> None:
    built, processor = shared()
    batch = processor(PROMPTS)
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    cached, uncached = (built.generate(**batch, **options, use_cache=use_cache) for use_cache in (True, False))
    assert torch.equal(cached.sequences, uncached.sequences)
    for first, second in zip(cached.logits, uncached.logits, strict=True):
        assert apart(first, second) < 1e-4  # measured 5e-6


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_is_taken_by_the_new_name_and_by_the_old_one(name: str) -> None:
    built, processor = shared()
    prompt = processor(PROMPTS[0])
    with torch.no_grad():
        whole = built(**prompt).logits[:, -1]
        text = {key: prompt[key] for key in ("input_ids", "position_ids", "visual_index")}
        begun = built(**{key: value[:, :-1] for key, value in text.items()}, pixel_values=prompt["pixel_values"], grids=prompt["grids"])
        last = built(**{key: value[:, -1:] for key, value in text.items()}, **{name: begun[CACHE]}).logits[:, -1]
    assert apart(last, whole) < 1e-4


def test_sampling_is_reproduced_by_its_seed() -> None:
    built, processor = shared()
    batch = processor(PROMPTS)

    def sampled(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return built.generate(**batch, max_new_tokens=NEW, do_sample=True, temperature=1.5)

    assert torch.equal(sampled(1), sampled(1))
    assert not torch.equal(sampled(1), sampled(2))


@pytest.mark.parametrize(
    "options", [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}, {"num_return_sequences": 3, "do_sample": True}]
)
@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_and_several_answers_share_an_image_that_is_encoded_once_a_forward_that_needs_it(
    options: dict[str, Any], use_cache: bool
) -> None:
    built, processor = model(), shared()[1]
    batch = processor(PROMPTS)
    seen = encoded_views(built)
    ids = built.generate(**batch, max_new_tokens=3, min_new_tokens=3, use_cache=use_cache, **{"do_sample": False, **options})
    assert ids.shape[0] == len(PROMPTS) * options.get("num_return_sequences", 1)
    assert seen == [5] * (1 if use_cache else 3)


def test_beam_search_finds_the_best_of_all_continuations() -> None:
    """As many beams as words, and the score of every continuation of two tokens by hand."""
    built, processor = model(), shared()[1]
    allowed = list(range(97, 103))

    def only(number: int, ids: Tensor) -> list[int]:
        return allowed

    for prompt in PROMPTS:
        batch = processor(prompt)
        length = batch["input_ids"].shape[1]
        found = built.generate(
            **batch,
            max_new_tokens=2,
            num_beams=len(allowed),
            do_sample=False,
            prefix_allowed_tokens_fn=only,
            eos_token_id=257,
            length_penalty=0.0,
        )[0, length:].tolist()
        pairs = torch.tensor([[first, second] for first in allowed for second in allowed])
        ids = torch.cat([batch["input_ids"].expand(len(pairs), -1), pairs], dim=1)
        index = torch.cat([batch["visual_index"].expand(len(pairs), -1), torch.full_like(pairs, -1)], dim=1)
        pixels = {name: batch[name] for name in ("pixel_values", "grids") if name in batch}
        with torch.no_grad():
            scores = built(ids, visual_index=index, **pixels).logits[:, length - 1 : length + 1].log_softmax(dim=-1)
        best = scores.gather(2, pairs[..., None]).sum(dim=(1, 2)).argmax()
        assert found == pairs[best].tolist()


def test_several_sampled_answers_are_those_of_the_repeated_prompt() -> None:
    built, processor = shared()
    options: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": True}
    torch.manual_seed(0)
    shared_image = built.generate(**processor(PROMPTS[2]), num_return_sequences=3, **options)
    torch.manual_seed(0)
    repeated = built.generate(**processor([PROMPTS[2]] * 3), **options)
    assert torch.equal(shared_image, repeated)


def test_scores_and_sequences_are_returned_where_they_are_asked_for() -> None:
    built, processor = shared()
    batch = processor(PROMPTS)
    out = built.generate(**batch, max_new_tokens=3, min_new_tokens=3, do_sample=False, output_scores=True, return_dict_in_generate=True)
    assert len(out.scores) == 3
    assert out.scores[0].shape == (4, 264)
    assert torch.equal(out.sequences[:, : batch["input_ids"].shape[1]], batch["input_ids"])
    first = built(**batch).logits[:, -1].argmax(dim=-1)
    assert torch.equal(out.sequences[:, batch["input_ids"].shape[1]], first) or bool(torch.isin(first, torch.tensor([257, 259])).any())


def test_a_streamer_tells_the_answer_piece_by_piece() -> None:
    from transformers import TextIteratorStreamer

    built, processor = shared()
    batch = processor(PROMPTS[0])
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, timeout=60)
    thread = Thread(target=built.generate, kwargs={**batch, "max_new_tokens": NEW, "do_sample": False, "streamer": streamer})
    thread.start()
    told = "".join(streamer)
    thread.join()
    ids = built.generate(**batch, max_new_tokens=NEW, do_sample=False)
    assert told == processor.decode(ids[0, batch["input_ids"].shape[1] :])


def test_generation_stops_at_the_end_of_the_turn() -> None:
    built, processor = shared()
    batch = processor(PROMPTS)
    begin = batch["input_ids"].shape[1]

    def end_soon(ids: Tensor, scores: Tensor) -> Tensor:
        """The first row ends its turn after one letter, the others after two."""
        forced = torch.full_like(scores, -torch.inf)
        for row in range(len(ids)):
            forced[row, 259 if ids.shape[1] - begin >= (1 if row == 0 else 2) else ord("a")] = 0
        return forced

    ids = built.generate(**batch, max_new_tokens=20, do_sample=False, logits_processor=[end_soon])
    assert ids[:, begin:].tolist() == [[97, 259, 256], *[[97, 97, 259]] * 3]


def test_prompt_lookup_gives_the_greedy_answer() -> None:
    built, processor = shared()
    batch = processor(PROMPTS[3])
    greedy = built.generate(**batch, max_new_tokens=12, do_sample=False)
    assert torch.equal(built.generate(**batch, max_new_tokens=12, do_sample=False, prompt_lookup_num_tokens=3), greedy)


def test_a_second_turn_goes_on_from_the_cache_of_the_first() -> None:
    """Only what is new is computed: the first image is in the cache already."""
    built, processor = model(architecture(language="llama")), shared()[1]
    first = [user(picture(seed=1), "one?")]
    begun = processor(first)
    out = built.generate(**begun, max_new_tokens=2, min_new_tokens=2, do_sample=False, return_dict_in_generate=True)
    second = [*first, assistant("ab"), user(picture(seed=2), "two?")]
    whole = processor(second)
    fresh = built.generate(**whole, max_new_tokens=NEW, do_sample=False)
    cache = out[CACHE]
    cache.crop(begun["input_ids"].shape[1] - cache.get_seq_length())
    seen = encoded_views(built)
    again = built.generate(**whole, **{CACHE: cache}, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(again, fresh)
    assert seen == [2]


@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_a_step_is_told_nothing_but_a_token_and_its_position(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where samples begin, and which tokens show images, is the prompt's; each step that looked at it would pay for it."""
    arch = architecture(language=language)
    built, processor = model(arch), vlmkit.build_processor(arch)
    batch = processor(PROMPTS[:1])
    assert "segments" in batch
    told: list[set[str]] = []

    def listen(module: Any, args: Any, given: dict[str, Any]) -> None:
        told.append({key for key, value in given.items() if value is not None})

    built.register_forward_pre_hook(listen, with_kwargs=True)
    monkeypatch.setattr("vlmkit.model.boundaries_of", lambda segments: pytest.fail("samples were looked for"))
    built.generate(**batch, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    step = {"input_ids", "attention_mask", "position_ids", CACHE, "use_cache", "return_dict"}
    assert [given - step for given in told[1:]] == [set(), set()]
