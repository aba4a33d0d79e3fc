"""A chat template in Jinja: ids are the tokenizer's own, answers are supervised, and no text becomes a special token."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_tokenizer import TAGS, adversarial, bpe
from vlmkit.layout import layouts
from vlmkit.layout.jinja_template import JinjaTemplate, Role
from vlmkit.layout.laid_out import Layout, LayoutError, Turn
from vlmkit.layout.reading import read_template
from vlmkit.layout.template import Template
from vlmkit.spec import SpecError
from vlmkit.tokenizer import PlainTokenizer

TRIMS = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles alternate') }}{% endif %}"
    "{{ '<|im_start|>' + m.content if m.role == 'user' else '<|im_end|> ' + m.content + eos_token }}{% endfor %}"
)
FOLDS_SYSTEM = (
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}{{ bos_token + 'Q: ' }}"
    "{{ '<<' + system + '>> ' if system and loop.first else '' }}{{ m.content }}{% else %} A: {{ m.content }} {{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %} A:{% endif %}"
)
NO_END = (
    "{% for m in messages %}{{ m.role.upper() + ': ' + m.content + ' ' }}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
THINKS = (
    "{% for m in messages %}{% set said = m.content.split('</think>')[-1].lstrip('\n') if '</think>' in m.content else m.content %}"
    "<|im_start|>{{ m.role }}\n{{ said if m.role == 'assistant' else m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
SOURCES = {"trims": TRIMS, "refuses system": REFUSES_SYSTEM, "folds system": FOLDS_SYSTEM, "no end": NO_END, "thinks": THINKS}
TOKENIZERS = {"byte level": bpe(), "first word": bpe(metaspace="first"), "every word": bpe(metaspace="always")}

CONVERSATIONS: dict[str, list[tuple[Role, str]]] = {
    "a question": [("user", "the cat")],
    "blanks around": [("user", " the cat \n")],
    "an answer": [("user", "the cat"), ("assistant", "sat on the mat")],
    "an answer that begins with a line": [("user", "the cat"), ("assistant", "\nthe mat\n")],
    "three turns": [("user", "the"), ("assistant", " cat"), ("user", "sat"), ("assistant", "on"), ("user", "the mat")],
    "system": [("system", "the mat"), ("user", "the cat"), ("assistant", "sat")],
    "unicode": [("user", "猫 🙂 é"), ("assistant", "🙂🙂")],
    "what it looks for": [("user", "the cat"), ("assistant", "on <think>the</think>\nthe mat"), ("user", "the </think> cat")],
    "empty": [("user", ""), ("assistant", ""), ("user", "the")],
    "two questions": [("user", "the"), ("user", "cat")],
}


def layout_of(name: str, tokenizer: Any) -> Any:
    template, _ = read_template(SOURCES[name], tokenizer, written="<|image|>")
    return layouts["run"](template=template, placeholder="<|image|>")


def turns_of(conversation: list[tuple[Role, str]]) -> list[Turn]:
    return [Turn(role, (words,), as_string=True) for role, words in conversation]


def laid_out(name: str, how: str, conversation: list[tuple[Role, str]], **ending: bool) -> tuple[Layout, Any]:
    tokenizer = TOKENIZERS[how]
    layout = layout_of(name, tokenizer)
    plain = PlainTokenizer(tokenizer, layout.required_specials())
    return layout.lay_out(turns_of(conversation), (), plain, **ending), tokenizer


@pytest.mark.parametrize("how", TOKENIZERS)
@pytest.mark.parametrize("name", SOURCES)
def test_ids_are_the_tokenizers_own_for_every_conversation_that_it_accepts(name: str, how: str) -> None:
    accepted = 0
    for conversation in CONVERSATIONS.values():
        for ending in ({}, {"add_generation_prompt": True}, {"continue_final_message": True}):
            messages = [{"role": role, "content": words} for role, words in conversation]
            try:
                theirs = TOKENIZERS[how].apply_chat_template(
                    messages, chat_template=SOURCES[name], tokenize=True, return_dict=False, **ending
                )
            except Exception as error:
                with pytest.raises(LayoutError, match="the chat template refuses this conversation: "):
                    laid_out(name, how, conversation, **ending)
                assert name == "refuses system" or "continue" in str(error), error
                continue
            ours, _ = laid_out(name, how, conversation, **ending)
            assert list(ours.ids) == theirs, (conversation, ending)
            accepted += 1
    assert accepted >= 20


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("trims", ["cat<|im_end|>", "on<|im_end|>"]),
        ("refuses system", ["<|im_end|>  cat</s>", "<|im_end|> on</s>"]),
        ("folds system", [" cat </s>", " on </s>"]),
        ("no end", [" cat", " on"]),
        ("thinks", [" cat<|im_end|>", "on<|im_end|>"]),
    ],
)
def test_an_answer_and_the_end_of_its_turn_are_supervised(name: str, answers: list[str]) -> None:
    layout, tokenizer = laid_out(name, "byte level", CONVERSATIONS["three turns"])
    found = [tokenizer.decode(layout.ids[start:stop]) for start, stop in layout.supervised]
    assert [text.strip() for text in found] == [text.strip() for text in answers]
    asked, _ = laid_out(name, "byte level", CONVERSATIONS["three turns"][:1], add_generation_prompt=True)
    if name != "thinks":  # which begins what it generates otherwise than what it was told
        assert list(layout.ids[: layout.supervised[0][0]]) == list(asked.ids)


@pytest.mark.parametrize("name", SOURCES)
@given(texts=st.lists(adversarial(), min_size=3, max_size=3))
def test_no_text_becomes_a_special_token(name: str, texts: list[str]) -> None:
    def structure(words: list[str]) -> list[int]:
        conversation: list[tuple[Role, str]] = [("user", words[0]), ("assistant", words[1]), ("user", words[2])]
        layout, _ = laid_out(name, "byte level", conversation)
        return [token for token in layout.ids if token in specials]

    tokenizer = TOKENIZERS["byte level"]
    specials = set(PlainTokenizer(tokenizer, layout_of(name, tokenizer).required_specials()).specials.values())
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in specials
    try:
        found = structure(texts)
    except LayoutError as error:
        assert "rewrites what the conversation says" in str(error)
        return
    assert found == structure(["a", "b", "c"])


def test_a_template_that_says_what_a_value_says_is_a_value() -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for item in m.content %}"
        "{{ '<|image|>' if item.type == 'image' else item.text }}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template, after_image = read_template(source, TOKENIZERS["byte level"], written="<|image|>")
    assert isinstance(template, Template)
    assert (template.user, template.assistant, after_image) == (
        ("<|im_start|>user\n", "<|im_end|>\n"),
        ("<|im_start|>assistant\n", "<|im_end|>\n"),
        "",
    )
    looks = source.replace("item.text }}", "item.text if 'secret' not in item.text else 'no' }}")
    assert isinstance(read_template(looks, TOKENIZERS["byte level"], written="<|image|>")[0], JinjaTemplate)


def test_images_stand_in_the_words_where_a_language_models_own_template_reads_texts_alone() -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.content if m.content is string else m.content | selectattr('type', 'equalto', 'text') | "
        "map(attribute='text') | join }}<|im_end|>{% endfor %}"
    )
    template, after_image = read_template(source, TOKENIZERS["byte level"], written="<|image|>", after_image="\n")
    assert isinstance(template, Template)
    assert (template.user, after_image) == (("<|im_start|>", "<|im_end|>"), "\n")
    odd = source.replace("m.content if m.content is string", "(m.content | trim) if m.content is string")
    template, after_image = read_template(odd, TOKENIZERS["byte level"], written="<|image|>", after_image="\n")
    assert isinstance(template, JinjaTemplate)
    assert (template.strings, after_image) == (("user", "assistant", "system"), "\n")


def test_a_template_that_shows_no_words_is_refused() -> None:
    with pytest.raises(SpecError, match="shows no words of a user's message"):
        read_template("{{ bos_token }}", TOKENIZERS["byte level"], written="<|image|>")


def test_words_that_a_template_rewrites_are_refused_and_not_guessed_at() -> None:
    source = "{% for m in messages %}<|im_start|>{{ m.content[::-1] }}{% endfor %}"
    layout = layouts["run"](template=JinjaTemplate(source=source), placeholder="<|image|>")
    with pytest.raises(LayoutError, match="rewrites what the conversation says"):
        layout.lay_out(turns_of([("user", "the cat")]), (), PlainTokenizer(TOKENIZERS["byte level"], TAGS))


def test_a_template_is_stored_and_what_does_not_fit_is_named_by_its_path() -> None:
    layout = layouts["run"](template=JinjaTemplate(source=TRIMS, strings=("system",)), placeholder="<|image|>")
    assert type(layout).from_json(layout.to_json()) == layout
    said = layout.to_dict()
    said["template"]["sources"] = said["template"].pop("source")
    with pytest.raises(SpecError, match=r"template\.sources: unknown field, did you mean 'source'\?"):
        type(layout).from_dict(said)
    value = layouts["run"](template=Template(user=("Q", ""), assistant=("A", "")), placeholder="<|image|>").to_dict()
    value["template"]["asistant"] = value["template"].pop("assistant")
    with pytest.raises(SpecError, match=r"template\.asistant: unknown field, did you mean 'assistant'\?"):
        type(layout).from_dict(value)
