"""Questions about one image that is encoded once: over every small named model, the answers of plain generation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import TextIteratorStreamer

import vlmkit
from tests.counted import TINY_MODELS
from tests.tiny import apart, architecture, assistant, draw, encoded_views, model, picture, shared, user
from vlmkit.about import About, has_plain_cache, placed
from vlmkit.batch.batch import Batch
from vlmkit.cache_name import CACHE
from vlmkit.model import VLM

QUESTIONS = ["What?", "How many cats are there in the picture?", "Colour of the sign"]
"""Of different lengths, so that rows of a batch are padded."""
NEW: dict[str, Any] = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
MODELS = vlmkit.list_models("*-tiny")


def test_every_small_model_is_walked() -> None:
    assert len(MODELS) == TINY_MODELS


def counted(built: VLM) -> tuple[list[int], list[int]]:
    """Lists that grow: by 1 each time a tower looks, and by the tokens of a row each time the language model speaks."""
    looked: list[int] = []
    spoke: list[int] = []
    for tower in built.towers:
        tower.register_forward_hook(lambda module, inputs, output: looked.append(1))

    def count(module: Any, inputs: Any, kwargs: Any) -> None:
        spoke.append(kwargs["inputs_embeds"].shape[1])

    built.language_model.register_forward_pre_hook(count, with_kwargs=True)
    return looked, spoke


def prompt(processor: Any, image: Any, question: str) -> Any:
    return processor([[user(image, question)]])


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_plain_generation_alone_and_in_one_batch(name: str) -> None:
    built, processor = vlmkit.build(name, seed=0), vlmkit.build_processor(name)
    draw(built)
    image = picture(90, 70, seed=3)
    prompts = [prompt(processor, image, question) for question in QUESTIONS]
    plain = [built.generate(**each, **NEW)[0, each["input_ids"].shape[1] :].tolist() for each in prompts]
    other = prompt(processor, picture(90, 70, seed=9), QUESTIONS[1])
    with torch.no_grad():
        moved = apart(built(**other).logits[:, -1], built(**prompts[1]).logits[:, -1])
    assert moved > 1e-3  # a different picture shows
    looked, spoke = counted(built)
    asked = built.about(processor, image)
    assert len(looked) == len(built.towers)

    def told(questions: list[str], **how: Any) -> list[list[int]]:
        inputs = asked.inputs(questions, **how)
        return built.generate(**inputs, **NEW)[:, inputs["input_ids"].shape[1] :].tolist()

    assert [told([question]) for question in QUESTIONS] == [[row] for row in plain]
    spoke.clear()
    assert told(QUESTIONS) == plain
    longest = max(each["input_ids"].shape[1] for each in prompts)
    assert spoke == [longest - asked.shared_tokens, *[1] * 5]  # what stands before the questions is not computed again
    assert told(QUESTIONS, share=False) == plain
    assert len(looked) == len(built.towers), "the image was encoded again"
    if has_plain_cache(built) and not built.spec.fusion.needs_prefix:
        assert 0 < asked.shared_tokens < longest
    else:
        assert asked.shared_tokens == 0


@pytest.mark.parametrize("name", ["univa-vl-tiny", "qwen2-vl-tiny", "llama-3.2-vision-tiny", "paligemma2-tiny"])
@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2}, {"use_cache": False}])
def test_beams_and_several_answers_go_on_from_the_shared_beginning(name: str, options: dict[str, Any]) -> None:
    built, processor = vlmkit.build(name, seed=0), vlmkit.build_processor(name)
    draw(built)
    image = picture(90, 70, seed=3)
    batch = processor([[user(image, question)] for question in QUESTIONS])
    plain = built.generate(**batch, **NEW, **options)
    inputs = built.about(processor, image).inputs(QUESTIONS, share=options.get("use_cache", True))
    assert torch.equal(built.generate(**inputs, **NEW, **options), plain)


@pytest.mark.parametrize("language", ["olmo3", "gemma2"])
def test_sliding_windows_see_what_they_would_see_of_a_long_row(language: str) -> None:
    """The window is 8 tokens; the shared beginning and the shortest question's padding are longer."""
    arch = architecture(language=language)
    built, processor = model(arch), vlmkit.build_processor(arch)
    questions = ["?", "A much longer question than the other one is, isn't it?"]
    image = picture(seed=4)
    asked = built.about(processor, image)
    assert asked.shared_tokens > 8
    inputs = asked.inputs(questions)
    batch = processor([[user(image, question)] for question in questions])
    options: dict[str, Any] = {**NEW, "output_logits": True, "return_dict_in_generate": True}
    ours, plain = built.generate(**inputs, **options), built.generate(**batch, **options)
    assert torch.equal(ours.sequences, plain.sequences)
    assert max(apart(one, other) for one, other in zip(ours.logits, plain.logits, strict=True)) < 1e-4  # measured 8e-6


def test_what_is_kept_is_not_changed_by_asking() -> None:
    built, processor = shared()
    asked = built.about(processor, picture(seed=1))
    layers = asked._cache.layers
    before = [(layer.keys.clone(), layer.values.clone()) for layer in layers]
    first = asked.ask("What is it?", max_new_tokens=5)
    asked.ask(QUESTIONS, max_new_tokens=5, num_beams=2)
    for layer, (keys, values) in zip(layers, before, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
    assert asked.ask("What is it?", max_new_tokens=5) == first == built.chat(processor, picture(seed=1), "What is it?", max_new_tokens=5)


def test_one_question_gives_a_text_and_several_a_list() -> None:
    built, processor = shared()
    asked = built.about(processor, picture(seed=1))
    alone = [built.chat(processor, picture(seed=1), question, max_new_tokens=5) for question in QUESTIONS]
    assert asked.ask(QUESTIONS, max_new_tokens=5) == alone
    assert asked.ask(QUESTIONS[0], max_new_tokens=5) == alone[0]
    assert asked.ask([], max_new_tokens=5) == []


def test_several_images_none_and_messages_before_the_question() -> None:
    built, processor = model(), shared()[1]
    several, system = [picture(seed=1), picture(60, 60, 2)], {"role": "system", "content": "Be brief."}
    turns = [user(picture(seed=5), "one?"), assistant("ab")]
    looked = encoded_views(built)
    for image, before, views in (
        (several, [], [2]),
        (several, [system], [2]),
        (None, [], []),
        (None, turns, [1]),
        (picture(seed=3), [system, *turns], [2]),
    ):
        shown = [] if image is None else image if isinstance(image, list) else [image]
        batch = processor([[*before, user(*shown, question)] for question in QUESTIONS])
        plain = built.generate(**batch, **NEW)
        looked.clear()
        inputs = built.about(processor, image, before=before).inputs(QUESTIONS)
        assert torch.equal(built.generate(**inputs, **NEW), plain)
        assert looked == views


def test_the_answer_is_streamed() -> None:
    built, processor = shared()
    asked = built.about(processor, picture(seed=1))
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60)
    answer = asked.ask("What is it?", max_new_tokens=5, streamer=streamer)
    assert "".join(streamer).strip() == answer


def test_a_static_cache_and_no_cache_share_the_visual_tokens_alone() -> None:
    built, processor = shared()
    asked = built.about(processor, picture(seed=1))
    answers = asked.ask(QUESTIONS, max_new_tokens=5)
    assert asked.ask(QUESTIONS, max_new_tokens=5, use_cache=False) == answers
    assert asked.ask(QUESTIONS, max_new_tokens=5, cache_implementation="static", disable_compile=True) == answers


def test_a_language_model_that_carries_a_state_shares_the_visual_tokens_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its cache holds beside keys and values would be lost."""
    from transformers import cache_utils

    built, processor = shared()
    whole = built.about(processor, picture(seed=1)).ask(QUESTIONS, max_new_tokens=5)

    class WithState(cache_utils.DynamicLayer):  # type: ignore[misc]
        pass

    monkeypatch.setitem(cache_utils.DYNAMIC_LAYER_TYPE_MAPPING, "full_attention", WithState)
    asked = built.about(processor, picture(seed=1))
    assert asked.shared_tokens == 0
    assert asked.ask(QUESTIONS, max_new_tokens=5) == whole


@pytest.mark.parametrize("pads", [[0, 0], [2, 0], [0, 3], [5, 1]])
def test_the_beginning_stands_behind_the_padding_of_each_row(pads: list[int]) -> None:
    kept = torch.randn(1, 2, 5, 3)
    rows = placed(kept, pads, 5)
    for row, pad in enumerate(pads):
        assert torch.equal(rows[row, :, pad:], kept[0, :, : 5 - pad])
        assert not rows[row, :, :pad].any()


def test_an_adapted_model_answers_about_an_image() -> None:
    from peft import LoraConfig, get_peft_model

    built, processor = model(), shared()[1]
    adapted = get_peft_model(built, LoraConfig(r=2, target_modules=r".*language_model.*q_proj", init_lora_weights=False))
    asked: About = adapted.about(processor, picture(seed=1))
    assert asked.ask(QUESTIONS, **NEW) == [adapted.chat(processor, picture(seed=1), question, **NEW) for question in QUESTIONS]


def test_inputs_hold_a_cache_that_generation_may_add_to() -> None:
    built, processor = shared()
    asked = built.about(processor, picture(seed=1))
    first, again = asked.inputs(QUESTIONS), asked.inputs(QUESTIONS)
    assert first[CACHE] is not again[CACHE]
    assert torch.equal(built.generate(**first, **NEW), built.generate(**again, **NEW))


@pytest.mark.parametrize("name", ["univa-vl-tiny", "qwen2-vl-tiny", "llama-3.2-vision-tiny", "prismatic-tiny"])
def test_a_question_copies_neither_the_beginning_nor_pixels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not padded: the first token behind the beginning makes the one copy that there is."""
    built, processor = vlmkit.build(name, seed=0), vlmkit.build_processor(name)
    asked = built.about(processor, [picture(90, 70, seed=3), picture(60, 60, seed=4)])
    moved: list[str] = []
    monkeypatch.setattr(Batch, "to", lambda batch, *where, **how: moved.extend(key for key in batch if len(batch[key])) or batch)
    for questions in (["What is it?"], ["What?", "Who??"]):
        cache = asked.inputs(questions)[CACHE]
        for kept, given in zip(asked._cache.layers, cache.layers, strict=True):
            assert given.keys.data_ptr() == kept.keys.data_ptr()
            assert given.values.data_ptr() == kept.values.data_ptr()
    assert "input_ids" in moved
    assert not any(key.startswith("pixel_values") for key in moved)
