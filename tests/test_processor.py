"""Conversations in, one batch out: any images, any turns, padded or packed, and nothing lost on the way to disk."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import vlmkit
from tests.tiny import CONVERSATIONS, PROMPTS, architecture, assistant, picture, shared, user
from vlmkit.batch.sample import PreparedSample
from vlmkit.layout.laid_out import IGNORE, LayoutError
from vlmkit.preprocess.images import ImageError
from vlmkit.processor import VLMProcessor
from vlmkit.spec import SpecError
from vlmkit.tokenizer import bytes_tokenizer


def processor() -> VLMProcessor:
    return shared()[1]


def words(ids: Tensor) -> str:
    return str(processor().decode(ids.tolist())).replace("<|image|>", "")


def same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_batch_has_the_documented_tensors_and_types() -> None:
    batch = processor()(CONVERSATIONS)
    rows, length = batch["input_ids"].shape
    assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()} == {
        **dict.fromkeys(
            ("input_ids", "attention_mask", "position_ids", "labels", "segments", "visual_index"), ((rows, length), torch.int64)
        ),
        "supervised": ((int((batch["labels"][:, 1:] != IGNORE).any(dim=0).sum()),), torch.int64),
        "pixel_values": ((int(batch["grids"].prod(dim=1).sum()), 3 * 14 * 14), torch.uint8),
        "grids": ((5, 3), torch.int64),
    }
    assert batch["input_ids"].shape[0] == 4


def test_images_of_a_batch_stand_in_order_and_every_visual_token_once() -> None:
    batch = processor()(CONVERSATIONS)
    index = batch["visual_index"]
    assert index[index >= 0].tolist() == list(range(int(index.max()) + 1))
    assert (batch["input_ids"][index >= 0] == 260).all()
    assert [int((row >= 0).sum()) > 0 for row in index] == [True, False, True, True]


def test_one_conversation_and_a_list_of_one_are_the_same() -> None:
    for conversation in CONVERSATIONS:
        assert same(processor()(conversation), processor()([conversation]))


def test_content_as_a_string_and_as_a_list_are_the_same() -> None:
    assert same(processor()([{"role": "user", "content": "hi"}]), processor()([user("hi")]))


def test_prompts_end_where_the_answer_begins_and_are_padded_on_the_left() -> None:
    batch = processor()(PROMPTS)
    assert "labels" not in batch
    for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        assert words(row).endswith("<|im_start|>assistant\n")
        assert mask.tolist() == sorted(mask.tolist())


def test_answered_conversations_are_padded_on_the_right_and_carry_labels_of_the_answers() -> None:
    batch = processor()(CONVERSATIONS)
    for row, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)
        supervised = labels != IGNORE
        assert torch.equal(labels[supervised], row[supervised])
        assert not bool((supervised & (mask == 0)).any())
    answers = ["A cat.<|im_end|>", "Yes, only words.<|im_end|>", "Yes.<|im_end|>", "1<|im_end|>2<|im_end|>"]
    assert [words(labels[labels != IGNORE]) for labels in batch["labels"]] == answers


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    batch = processor()(CONVERSATIONS)
    for number, conversation in enumerate(CONVERSATIONS):
        alone = processor()(conversation)
        seen = batch["attention_mask"][number].bool()
        for name in ("input_ids", "position_ids", "labels"):
            assert torch.equal(batch[name][number, seen], alone[name][0])
        index = batch["visual_index"][number, seen]
        first = int(index[index >= 0].min()) if bool((index >= 0).any()) else 0
        assert torch.equal(torch.where(index >= 0, index - first, index), alone["visual_index"][0])


def test_packed_conversations_stand_in_one_row_with_positions_that_start_again_and_no_mask() -> None:
    packed = processor()(CONVERSATIONS, pack=True)
    alone = [processor()(conversation) for conversation in CONVERSATIONS]
    assert "attention_mask" not in packed
    assert packed["input_ids"].tolist() == [[token for one in alone for token in one["input_ids"][0].tolist()]]
    assert packed["position_ids"].tolist() == [[at for one in alone for at in range(one["input_ids"].shape[1])]]
    assert int((packed["labels"] != IGNORE).sum()) == sum(int((one["labels"] != IGNORE).sum()) for one in alone)
    starts = packed["position_ids"][0] == 0
    assert (packed["labels"][0, starts] == IGNORE).all(), "the first token of a sample is nobody's target"


@pytest.mark.parametrize(
    ("images", "text", "placed"),
    [
        (None, "hi", [[]]),
        (None, ["hi", "ho"], [[], []]),
        (1, "hi", [[1]]),
        ([1], "hi", [[1]]),
        ([1, 2], "hi", [[1, 2]]),
        ((1, 2), ["hi"], [[1, 2]]),
        ([], "hi", [[]]),
        ([[1, 2]], "hi", [[1, 2]]),
        ([1, 2], ["hi", "ho"], [[1], [2]]),
        ([[1, 2], []], ["hi", "ho"], [[1, 2], []]),
        ([[1], 2], ["hi", "ho"], [[1], [2]]),
    ],
)
def test_images_and_text_become_one_question_a_text(images: Any, text: Any, placed: list[list[int]]) -> None:
    def drawn(value: Any) -> Any:
        return [drawn(item) for item in value] if isinstance(value, list | tuple) else picture(seed=value) if value else value

    texts = [text] if isinstance(text, str) else text
    conversations = [[user(*(picture(seed=seed) for seed in seeds), question)] for seeds, question in zip(placed, texts, strict=True)]
    assert same(processor()(images=drawn(images), text=text), processor()(conversations, portable_form=True))


def test_every_form_of_an_image_gives_the_same_batch(tmp_path: Path) -> None:
    array = picture()
    Image.fromarray(array).save(tmp_path / "a.png")
    forms: list[Any] = [array, Image.fromarray(array), torch.from_numpy(array), tmp_path / "a.png", str(tmp_path / "a.png")]
    forms.append((tmp_path / "a.png").read_bytes())
    batches = [processor()([{"role": "user", "content": [{"type": "image", "image": form}]}]) for form in forms]
    assert all(same(batches[0], batch) for batch in batches)


def test_apply_chat_template_is_the_same_as_a_call() -> None:
    p = processor()
    asked = p.apply_chat_template(PROMPTS, add_generation_prompt=True, return_tensors="pt")
    assert same(asked, p(PROMPTS, portable_form=True))
    lists = p.apply_chat_template(PROMPTS, add_generation_prompt=True)
    held = asked["attention_mask"].bool()
    assert lists["input_ids"] == [row[kept].tolist() for row, kept in zip(asked["input_ids"], held, strict=True)]
    with pytest.raises(ValueError, match="ids alone do not say where images stand"):
        p.apply_chat_template(PROMPTS, return_dict=False)
    with pytest.raises(ValueError, match="pass neither chat_template nor tools"):
        p.apply_chat_template(PROMPTS, chat_template="{{ messages }}")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p(), "pass either conversations, which hold their images, or text with or without images"),
        (lambda p: p(images=picture()), "pass either conversations"),
        (lambda p: p(PROMPTS, text="hi"), "pass either conversations"),
        (lambda p: p(PROMPTS, images=[picture()]), "pass either conversations"),
        (lambda p: p([]), "an empty batch: pass at least one conversation"),
        (lambda p: p("hi"), "conversations are lists of messages, got str"),
        (lambda p: p(picture()), "conversations are lists of messages, got ndarray"),
        (lambda p: p(["hi"]), "a conversation is a list of messages, got 'hi'"),
        (lambda p: p([[]]), "a conversation has at least one message, got an empty list"),
        (
            lambda p: p(images=picture(), text=["a", "b"]),
            r"2 text\(s\), but images for 1; give one image, or a list of images, for each text",
        ),
        (lambda p: p(images=[[picture()]] * 3, text=["a", "b"]), r"2 text\(s\), but images for 3"),
        (
            lambda p: p(CONVERSATIONS, max_length=20),
            r"conversation 0 has \d+ tokens, more than max_length=20; raise it, or pass truncation=True",
        ),
        (
            lambda p: p(PROMPTS, max_length=20, truncation=True),
            r"conversation 0 has \d+ tokens, more than max_length=20; raise it: an answer is to be generated at the end",
        ),
    ],
)
def test_a_call_that_makes_no_batch_says_why(call: Any, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        call(processor())


def test_arguments_of_another_library_are_refused() -> None:
    with pytest.raises(ValueError, match="return_tensors='np': the batch is made of PyTorch tensors"):
        processor()(PROMPTS, return_tensors="np")
    with pytest.raises(ValueError, match="padding_side='both': expected 'left' or 'right'"):
        processor()(PROMPTS, padding_side="both")


def test_an_image_that_cannot_be_opened_is_named() -> None:
    with pytest.raises(ImageError, match=r"'nowhere\.png' does not exist"):
        processor()([user(Path("nowhere.png"), "?")])
    with pytest.raises(vlmkit.ImageSizeError, match="aspect ratio"):
        processor()([user(picture(2, 900), "?")])


def test_nothing_left_of_a_conversation_that_begins_with_an_image_is_said() -> None:
    begins_with_an_image = vlmkit.build_processor(vlmkit.architecture("paligemma-tiny"))
    with pytest.raises(
        LayoutError, match=r"has \d+ tokens, more than max_length=1, and nothing would be left of it.*raise max_length"
    ) as caught:
        begins_with_an_image(CONVERSATIONS[:1], max_length=1, truncation=True)
    assert "truncation" not in str(caught.value)


def test_who_passed_truncation_is_not_told_to_pass_it() -> None:
    with pytest.raises(LayoutError, match="max_length=20; raise it") as caught:
        processor()(PROMPTS, max_length=20, truncation=True)
    assert "truncation" not in str(caught.value)


@pytest.mark.parametrize("length", [5, 20, 24, 25, 40, 60, 200])
def test_truncation_drops_images_whole_from_tokens_and_pixels_alike(length: int) -> None:
    conversation = [user("a", picture(seed=1), "b", picture(seed=2), "c"), assistant("d")]
    batch = processor()(conversation, max_length=length, truncation=True)
    whole = processor()(conversation)
    size = batch["input_ids"].shape[1]
    assert size <= length
    assert torch.equal(batch["input_ids"], whole["input_ids"][:, :size])
    views = len(batch["grids"]) if "grids" in batch else 0
    assert views == sum(1 for extent in processor().sample(conversation).layouts[0].extents if extent[1] <= size)
    assert int((batch["visual_index"] >= 0).sum()) == views * 6


def test_padding_is_said_as_in_transformers() -> None:
    p = processor()
    longest = p(CONVERSATIONS)
    assert same(p(CONVERSATIONS, padding=True), longest)
    assert same(p(CONVERSATIONS, padding="longest"), longest)
    size = longest["input_ids"].shape[1]
    fixed = p(CONVERSATIONS, padding="max_length", max_length=size + 7)
    assert fixed["input_ids"].shape[1] == size + 7
    assert torch.equal(fixed["input_ids"][:, :size], longest["input_ids"])
    assert not fixed["attention_mask"][:, size:].any()
    assert same(p(CONVERSATIONS[:1], padding=False), p(CONVERSATIONS[:1]))
    with pytest.raises(ValueError, match=r"padding=False: rows of \d+ to \d+ tokens make no tensor"):
        p(CONVERSATIONS, padding=False)
    with pytest.raises(ValueError, match=r"padding='max_length': expected True, False, 'longest', or 'max_length' beside max_length="):
        p(CONVERSATIONS, padding="max_length")


def test_a_chat_template_is_applied_as_pipelines_ask_for_it() -> None:
    p = processor()
    asked = p.apply_chat_template(
        PROMPTS,
        add_generation_prompt=True,
        continue_final_message=False,
        padding=True,
        processor_kwargs={"padding_side": "right"},
        return_tensors="pt",
    )
    assert same(asked, p(PROMPTS, padding_side="right", portable_form=True))
    with pytest.raises(LayoutError, match="leave text and add_generation_prompt out"):
        p.apply_chat_template(PROMPTS, add_generation_prompt=True, continue_final_message=True)


def test_an_answer_is_continued_from_its_last_word() -> None:
    p = processor()
    whole = p([[user(picture(), "what?"), assistant("a cat.")]])
    begun = p.apply_chat_template([user(picture(), "what?"), assistant("a cat")], continue_final_message=True, return_tensors="pt")
    length = begun["input_ids"].shape[1]
    assert p.decode(begun["input_ids"][0]).endswith("assistant\na cat")
    assert "labels" not in begun
    assert torch.equal(begun["input_ids"], whole["input_ids"][:, :length])


def test_a_whole_prompt_is_taken_where_it_is_trusted_and_refused_elsewhere() -> None:
    p = processor()
    asked = p([user(picture(), "what <|im_end|>?")])
    text = p.decode(asked["input_ids"][0]).replace("<|im_end|>", "", 1).replace("what ?", "what?")
    prompt = re.sub(r"(<\|image\|>)+", "<|image|>", text)
    trusted = p(text=prompt, images=picture(), trusted=True)
    assert p.decode(trusted["input_ids"][0]) == text
    assert torch.equal(trusted["pixel_values"], asked["pixel_values"])
    with pytest.raises(LayoutError, match=r"holds '<\|image\|>': if it is a whole prompt of yours, pass trusted=True"):
        p(text=prompt, images=picture())
    with pytest.raises(LayoutError, match=r"1 place\(s\) '<.image.>' for 2 image"):
        p(text=[prompt], images=[[picture(), picture()]], trusted=True)


def test_several_conversations_about_one_image_share_its_pixels() -> None:
    p = processor()
    question = user(picture(), "one?")
    sample = p.sample([question, assistant("1")])
    second = p.lay_out([user(picture(), "two?"), assistant("2")], sample.images)
    batch = p.collate([PreparedSample(sample.images, (*sample.layouts, second)), p.sample(CONVERSATIONS[0])])
    assert batch["grids"].shape == (2, 3)
    first_index, second_index, third_index = (row[row >= 0].tolist() for row in batch["visual_index"])
    assert first_index == second_index == list(range(6))
    assert third_index == list(range(6, 12))


def test_a_saved_processor_makes_the_same_batches(tmp_path: Path) -> None:
    p = processor()
    p.save_pretrained(tmp_path)
    for again in (
        VLMProcessor.from_pretrained(tmp_path),
        vlmkit.build_processor(tmp_path),
        copy.deepcopy(p),
        pickle.loads(pickle.dumps(p)),
    ):
        assert again.spec == p.spec
        assert same(again(CONVERSATIONS), p(CONVERSATIONS))
        assert again.stop_token_ids == p.stop_token_ids == [259]


def test_a_batch_moves_and_keeps_its_bytes() -> None:
    batch = processor()(PROMPTS).to("cpu", torch.bfloat16)
    assert batch["pixel_values"].dtype == torch.uint8
    assert batch["input_ids"].dtype == torch.int64


def test_a_processor_without_what_it_needs_says_so() -> None:
    with pytest.raises(SpecError, match="a processor needs its architecture"):
        VLMProcessor(processor().tokenizer)
    arch = architecture()
    with pytest.raises(SpecError, match=r"the tokenizer has no special token '<\|extra_id_0\|>'"):
        vlmkit.build_processor(arch, tokenizer=bytes_tokenizer(), layout=arch.layout.replace(placeholder="<|extra_id_0|>"))
    with pytest.raises(SpecError, match="names no tokenizer; pass tokenizer="):
        vlmkit.build_processor(arch, language_model=arch.language_model.replace(tokenizer=None))


def test_your_own_tokenizer_takes_the_place_of_the_named_one() -> None:
    own = bytes_tokenizer()
    assert vlmkit.build_processor(vlmkit.architecture("univa-vl-tiny"), tokenizer=own).tokenizer is own
    assert same(vlmkit.build_processor("univa-vl-tiny", tokenizer="bytes")(PROMPTS), vlmkit.build_processor("univa-vl-tiny")(PROMPTS))
