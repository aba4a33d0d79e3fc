"""A large value is counted before it is made: where it ends, what is in it, whatever is cut where."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from vlmkit.data.reading import large_json
from vlmkit.data.reading.large_json import LargeValue, TooLarge, from_pieces

TEXTS = st.text(st.sampled_from('ab"\\{}[],: é中😀\ud800\n'))
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=12
).filter(lambda value: isinstance(value, str | list | dict))


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@settings(max_examples=200)
@given(VALUES, st.integers(1, 50), st.booleans(), st.sampled_from(["", ",", "]}", ' "', "\\"]))
def test_it_ends_where_the_value_ends_and_is_what_json_reads(value, size, ascii_only, behind):
    text = json.dumps(value, ensure_ascii=ascii_only)
    large, at = LargeValue(), 0
    for piece in cut(text + behind, size):
        if (end := large.end(piece)) is not None:
            break
        at += len(piece)
    assert at + end == len(text)
    assert large.made() == json.loads(text)
    passed, at = LargeValue(kept=False), 0
    assert [passed.end(piece) is not None for piece in cut(text, size)][-1]


@settings(max_examples=50)
@given(VALUES, st.integers(1, 50), st.booleans())
def test_pieces_are_the_value_that_they_are_together(value, size, ascii_only):
    text = f" \n{json.dumps(value, ensure_ascii=ascii_only)}\r\n"
    assert from_pieces(cut(text, size)) == value
    with pytest.raises(ValueError, match="Extra data"):
        from_pieces(cut(text + "]", size))
    with pytest.raises(json.JSONDecodeError):
        from_pieces(cut(text.rstrip()[:-1], size))
    with pytest.raises(EOFError):
        from_pieces([" ", "\n"])


@pytest.mark.parametrize("size", [7, 1000])
@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ('["abc"]', 7 + 64),
        ('{"a": [1, 2]}', 13 + 4 * 64),
        ('[",:[{"]', 8 + 64),
        (r'["\",", "\\", "a"]', 18 + 3 * 64),
        # Texts with letters beyond ASCII four times, with their opening quote not.
        ('["aé", "bc"]', 12 + 5 + 3 * 2 + 2 * 64),
        (r'["a\u00e9", "bc"]', 17 + 3 * 7 + 2 * 64),
        ('["' + "x" * 2000 + '😀"]', 2005 + 11 + 3 * 2001 + 64),
    ],
)
def test_what_is_counted(text, counted, size, monkeypatch):
    monkeypatch.setattr(large_json, "LONGEST", counted)
    assert from_pieces(cut(text, size)) == json.loads(text)
    monkeypatch.setattr(large_json, "LONGEST", counted - 1)
    with pytest.raises(TooLarge, match=f"more than {counted - 1} characters"):
        from_pieces(cut(text, size))
