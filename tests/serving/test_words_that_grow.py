"""The pieces of an answer make up its text, and no stop is ever sent."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from vlmkit.serving.words import Words


def decode(tokens: Sequence[int]) -> str:
    return bytes(tokens).decode("utf-8", "replace")


def pieces(text: bytes, stops: Sequence[str], at_once: int = 1) -> tuple[list[str], Words]:
    words = Words(decode, stops)
    sent = []
    for start in range(0, len(text), at_once):
        over = words.add(list(text[start : start + at_once]))
        sent.append(words.sendable())
        if over:
            break
    return [*sent, words.sendable(last=True)], words


def expected(text: bytes, stops: Sequence[str], at_once: int) -> str:
    """By the definition: as soon as the text holds a stop it ends before the first."""
    for end in range(at_once, len(text) + at_once, at_once):
        whole = decode(text[:end])
        if places := [whole.find(stop) for stop in stops if stop in whole]:
            return whole[: min(places)]
    return decode(text)


@given(
    st.text("abé☃𝄞", max_size=30),
    st.lists(st.text("abé☃", min_size=1, max_size=4), max_size=4),
    st.integers(1, 5),
)
def test_pieces_are_the_text_up_to_its_first_stop(text: str, stops: list[str], at_once: int) -> None:
    sent, words = pieces(text.encode(), stops, at_once)
    assert "".join(sent) == words.text == expected(text.encode(), stops, at_once)
    assert words.stopped == any(stop in text for stop in stops)


@given(st.binary(max_size=30), st.integers(1, 5))
def test_bytes_that_are_no_text_come_out_as_the_tokenizer_has_them(data: bytes, at_once: int) -> None:
    sent, _ = pieces(data, [], at_once)
    assert "".join(sent) == decode(data)


def test_half_a_letter_and_half_a_stop_are_kept_back() -> None:
    words = Words(decode, ["END"])
    words.add(list("é".encode()[:1]))
    assert words.sendable() == ""
    words.add(list("é".encode()[1:]))
    assert words.sendable() == "é"
    words.add(list(b"xEN"))
    assert words.sendable() == "x"
    words.add(list(b"T"))
    assert words.sendable() == "ENT"
    assert words.add(list(b" END and more"))
    assert words.sendable() == " "
    assert words.text == "éxENT "


def test_an_answer_that_begins_once_more_is_not_sent_twice() -> None:
    words = Words(decode)
    words.add(list(b"abc"))
    assert words.sendable() == "abc"
    words.restart()
    sent = ""
    for letter in b"abcde":
        words.add([letter])
        sent += words.sendable()
    assert sent + words.sendable(last=True) == "de"
