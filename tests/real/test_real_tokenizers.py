"""Language models exchanged with the tokenizers that their makers publish: ids are the maker's own, and no text becomes a special token."""

from __future__ import annotations

import warnings
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import vlmkit
from tests.real.makes import MAKES, Encode, Make, save, without_pixels
from tests.tiny import assistant, user
from vlmkit.architecture import Architecture
from vlmkit.processor import VLMProcessor

pytestmark = pytest.mark.real

PICTURES = [np.zeros(size, np.uint8) for size in ((40, 60, 3), (90, 50, 3))]
WORDS = ("What is  this?", "Ein naïver Straßenname, 2026!", "  日本語と絵 🙂\n\n\tdef f(x):\n    return x", "it's 1234567 'll")


class Case(NamedTuple):
    make: Make
    theirs: Encode
    directory: Path
    architecture: Architecture
    processor: VLMProcessor


@pytest.fixture(scope="module", params=MAKES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Make, Encode, Path]:
    directory = tmp_path_factory.mktemp("make")
    return MAKES[request.param], save(MAKES[request.param], directory), directory


@pytest.fixture(scope="module", params=["llava-1.5-7b", "univa-vl", "qwen2-vl-7b"])
def case(request: pytest.FixtureRequest, saved: tuple[Make, Encode, Path]) -> Case:
    make, theirs, directory = saved
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        exchanged = vlmkit.architecture(request.param).replace(language_model=directory).validate()
    return Case(make, theirs, directory, exchanged, vlmkit.build_processor(exchanged))


def written(case: Case, conversation: list[dict[str, Any]], *, asks: bool) -> str:
    """What the template writes: each image as its one placeholder, between the layout's own tokens."""
    layout, template = case.architecture.layout, case.architecture.layout.template
    image = getattr(layout, "start", "") + layout.placeholder + getattr(layout, "end", "") + layout.after_image
    text = template.begin
    for message in conversation:
        before, after = template.around(message["role"])
        content = message["content"]
        items = [{"type": "text", "text": content}] if isinstance(content, str) else content
        text += before + (template.before_answer if message["role"] == "assistant" else "")
        text += "".join(image if item["type"] == "image" else item["text"] for item in items) + after
    return text + (template.assistant[0] if asks else "")


def once(ids: list[int], placeholder: int) -> list[int]:
    """Runs of the placeholder as one."""
    return [number for number, run in groupby(ids) for _ in range(1 if number == placeholder else len(list(run)))]


def test_the_layout_follows(case: Case) -> None:
    """A token that the layout has already and the tokenizer too stays: univa-vl's is OLMo's own."""
    before, layout = vlmkit.architecture(case.architecture.name).layout, case.architecture.layout
    assert layout.template == case.make.template
    assert layout.placeholder == (
        before.placeholder if before.placeholder in case.processor.tokenizer.get_vocab() else case.make.placeholder
    )
    assert case.architecture.language_model.dim == case.make.language_model.dim


@pytest.mark.parametrize("words", WORDS)
def test_ids_are_the_makers_own(case: Case, words: str) -> None:
    placeholder = case.processor.plain_tokenizer.specials[case.architecture.layout.placeholder]
    one, two = PICTURES
    for conversation, asks in (
        ([user(one, words)], True),
        ([user(words, one, "and", two)], True),
        ([user(words)], True),
        ([user(one, words), assistant(words), user("Why?"), assistant("So.")], False),
    ):
        ids = case.processor(conversation)["input_ids"][0].tolist()
        text = written(case, conversation, asks=asks)
        assert once(ids, placeholder) == case.theirs(text)
        assert case.processor.tokenizer.decode(once(ids, placeholder), clean_up_tokenization_spaces=False) == text


def test_text_that_spells_special_tokens_becomes_none(case: Case) -> None:
    specials = case.processor.plain_tokenizer.specials
    numbers = set(specials.values())
    spelled = [*specials]
    plain = case.processor([user(PICTURES[0], "x")])["input_ids"][0].tolist()
    for text in (
        "".join(spelled),
        " ".join(spelled),
        "\n".join(reversed(spelled)),
        *spelled[:20],
        *case.architecture.layout.required_specials(),
    ):
        ids = case.processor([user(PICTURES[0], text)])["input_ids"][0].tolist()
        assert [number for number in ids if number in numbers] == [number for number in plain if number in numbers], text


def test_olmo_keeps_the_flagships_own_layout(tmp_path: Path) -> None:
    theirs = save(MAKES["olmo"], tmp_path, chats=False)
    before = vlmkit.architecture("univa-vl")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = before.replace(language_model=tmp_path).validate()
    assert after.layout == before.layout
    photo = pytest.importorskip("skimage.data").astronaut()
    ids = vlmkit.build_processor(after)([user(photo, "What is this person's job?")])["input_ids"][0].tolist()
    around = theirs("<|im_start|>user\n<|extra_id_0|>\nWhat is this person's job?<|im_end|>\n<|im_start|>assistant\n")
    assert ids.count(100256) == before.tokens(vlmkit.Size(512, 512)) == 256
    assert once(ids, 100256) == around


def test_pixtral_is_laid_out_as_mistral_common_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pixels(monkeypatch)
    from mistral_common.protocol.instruct import chunk, messages, request
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
    from PIL import Image

    from tests.real.makes import published

    save(MAKES["tekken"], tmp_path, chats=False)
    exchanged = vlmkit.architecture("pixtral-12b").replace(language_model=tmp_path).validate()
    assert exchanged.layout == vlmkit.architecture("pixtral-12b").layout
    processor = vlmkit.build_processor(exchanged)
    before, behind = "And [IMG] in", " here?"
    theirs = MistralTokenizer.from_file(str(published("mistral_common", "data/tekken_240911.json")))
    for height, width in ((64, 96), (50, 70), (1, 40), (1500, 900), (1024, 1024), (700, 2100)):
        image = Image.new("RGB", (width, height))
        said = [
            messages.UserMessage(content=[chunk.ImageChunk(image=image), chunk.TextChunk(text=WORDS[1])]),
            messages.AssistantMessage(content="Ja."),
            messages.UserMessage(content=[chunk.TextChunk(text=before), chunk.ImageChunk(image=image), chunk.TextChunk(text=behind)]),
        ]
        expected = theirs.encode_chat_completion(request.ChatCompletionRequest(messages=said)).tokens
        ours = processor([user(image, WORDS[1]), assistant("Ja."), user(before, image, behind)])["input_ids"][0].tolist()
        assert ours == expected, (height, width)


def test_a_template_of_other_tokens_is_said_where_the_tokenizer_has_none(tmp_path: Path) -> None:
    save(MAKES["llama 3"], tmp_path, chats=False)
    with pytest.warns(UserWarning, match=r"takes '<\|image\|>' as its placeholder \(was '<image>'\)"):
        exchanged = vlmkit.architecture("llava-1.5-7b").replace(language_model=tmp_path)
    [problem] = exchanged.problems()
    assert "has no special token '<s>', '</s>', which the layout's template spells; it has no chat template of its own" in problem
