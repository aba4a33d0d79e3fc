"""Every make, every kind of conversation: vlmkit's ids are the reference processor's, or both refuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prompts.directories import Published
from prompts.kinds import FIRST, KINDS, Conversation, Kind, assistant, user
from prompts.laws import RefusedError, compared, control, images_of, own_ids, reference_ids
from prompts.makes import MAKES, Make
from prompts.record import described, record, record_kind

import vlmkit
from vlmkit.checkpoints import family_of, model_type_of

BY_TITLE = {kind.title: kind for kind in KINDS}
every_make = pytest.mark.parametrize("make", MAKES, ids=lambda make: make.name)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title.replace(" ", "-"))

Get = Callable[[Make], Published]


def test_at_least_fourteen_makes_and_ten_kinds() -> None:
    assert len({make.title for make in MAKES}) == len({make.name for make in MAKES}) == len(MAKES) >= 14
    assert len(BY_TITLE) == len(KINDS) >= 10


@every_kind
@every_make
def test_ids_are_the_references(make: Make, kind: Kind, published: Get) -> None:
    found = published(make)
    outcomes = [compared(found.reference, found.processor, kind.conversation, **asks) for asks in kind.asks]
    for asks, (_, wrong) in zip(kind.asks, outcomes, strict=True):
        assert not wrong, asks
    record_kind(make, kind.title, outcomes[0].outcome)


@every_make
def test_a_conversation_stays_as_it_was(make: Make, published: Get) -> None:
    found = published(make)
    conversation = [user(FIRST, "What is this?"), assistant("A cat.")]
    own_ids(found.processor, conversation)
    assert conversation == [user(FIRST, "What is this?"), assistant("A cat.")]
    cls = family_of(model_type_of(str(found.directory))).reference()
    record(make, reference=cls.__name__, tokenizer=described(found.reference.tokenizer))


def spelled(make: Make, found: Published) -> list[str]:
    """Spellings that a user may type and that must stay text."""
    tokenizer = found.reference.tokenizer
    return sorted(filter(None, (tokenizer.convert_ids_to_tokens(number) for number in control(found.reference))))[:40]


def conversation_with(words: list[str]) -> Conversation:
    """The words in a question and in an answer: beside blanks, letters and each other."""
    typed = "".join(f"a{word} {word} b" for word in words) + "".join(words)
    return [user(FIRST, f"Is {typed} it?"), assistant(f"No, {typed}.")]


@every_make
def test_typed_special_tokens_stay_text(make: Make, published: Get) -> None:
    """As many special tokens as where harmless words stand in their place, and the same text around them."""
    found = published(make)
    tokenizer, special = found.reference.tokenizer, control(found.reference)
    typed = spelled(make, found)
    harmless = [f"Zq{number}z" for number in range(len(typed))]
    expected = reference_ids(found.reference, conversation_with(harmless))
    ids = own_ids(found.processor, conversation_with(typed))
    assert Counter(number for number in ids if number in special) == Counter(number for number in expected if number in special)
    text = tokenizer.decode(expected)
    for word, spelling in sorted(zip(harmless, typed, strict=True), key=lambda pair: -len(pair[0])):
        text = text.replace(word, spelling)
    assert tokenizer.decode(ids) == text
    record(make, typed=len(typed))


@every_make
def test_no_text_becomes_a_special_token(make: Make, published: Get) -> None:
    """Fragments of special tokens, of Jinja and of anything that marks a place, in any order, in every role that the make takes."""
    found = published(make)
    special = control(found.reference)
    typed = spelled(make, found)
    pieces = st.sampled_from(
        [*typed, *(word[:-1] for word in typed), *(word[1:] for word in typed), "{{", "}}", "{%", " ", "\n", "\0", "a", "\ue000"]
    )
    words = st.lists(pieces, max_size=8).map("".join) | st.text(max_size=12)

    def counted(question: str, answer: str) -> Counter[int]:
        ids = own_ids(found.processor, [user(question, FIRST, question), assistant(answer)])
        return Counter(number for number in ids if number in special)

    harmless = counted("q", "a")
    laid_out = 0

    @settings(max_examples=15, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(words, words)
    def attempt(question: str, answer: str) -> None:
        nonlocal laid_out
        with suppress(vlmkit.LayoutError, vlmkit.SpecError):
            assert counted(f"q{question}q", f"a{answer}a") == harmless
            laid_out += 1

    attempt()
    assert laid_out >= 8, "most texts are laid out, or the test tells nothing"


@every_make
def test_supervised_are_the_answers_and_the_ends_of_their_turns(make: Make, published: Get) -> None:
    found = published(make)
    tokenizer = found.reference.tokenizer
    blank = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
    for title, answers in (("three turns", ("A boat.", "The sun.")), ("answered", ("The first one.",))):
        spans = supervised(found, BY_TITLE[title].conversation)
        texts = [tokenizer.decode(ids) for _, ids in spans]
        assert len(texts) == len(answers)
        for text, answer in zip(texts, answers, strict=True):
            assert text.strip().startswith(answer)
            end = text.strip().removeprefix(answer)
            for token in sorted(blank, key=len, reverse=True):
                end = end.replace(token, "")
            assert not end.strip(), text
        if title in make.supervised:
            assert tuple(text.lstrip(" ") for text in texts) == make.supervised[title]
    record(make, supervised=True)


@every_make
def test_supervision_begins_where_generation_would(make: Make, published: Get) -> None:
    """Where the prompt's ids begin those of the answered conversation, the answer is all that comes behind them."""
    found = published(make)
    conversation = BY_TITLE["answered"].conversation
    prompt = reference_ids(found.reference, conversation[:-1], add_generation_prompt=True)
    whole = reference_ids(found.reference, conversation)
    (start, _), *rest = supervised(found, conversation)
    assert not rest
    if whole[: len(prompt)] == prompt:
        assert start == len(prompt)


def supervised(found: Published, conversation: Conversation) -> list[tuple[int, list[int]]]:
    """Where stretches of supervised tokens begin, and their ids."""
    batch = found.processor(conversation, add_generation_prompt=False)
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    spans: list[tuple[int, list[int]]] = []
    for place, label in enumerate(labels):
        if label == -100:
            continue
        if spans and spans[-1][0] + len(spans[-1][1]) == place:
            spans[-1][1].append(label)
        else:
            spans.append((place, [label]))
    return spans


@every_make
def test_what_a_template_refuses_is_refused_in_its_words(make: Make, published: Get) -> None:
    found = published(make)
    for kind in KINDS:
        try:
            reference_ids(found.reference, kind.conversation, **kind.asks[0])
        except RefusedError as refused:
            kept = str(refused).removeprefix("TemplateError: ")
            if kept == str(refused):
                continue
            with pytest.raises((vlmkit.LayoutError, vlmkit.SpecError)) as error:
                own_ids(found.processor, kind.conversation, **kind.asks[0])
            assert kept in str(error.value)


@every_make
def test_several_rows_are_those_alone(make: Make, published: Get) -> None:
    found = published(make)
    rows = [kind.conversation for kind in KINDS if kind.title in ("words first", "only an image", "two images")]
    assert all(images_of(row) for row in rows)
    batch = found.processor(rows, add_generation_prompt=True)
    for row, ids, mask in zip(rows, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True):
        kept = [token for token, there in zip(ids, mask, strict=True) if there]
        assert kept == reference_ids(found.reference, row, add_generation_prompt=True)
