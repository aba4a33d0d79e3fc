from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from vlmkit.data.reading import json_stream
from vlmkit.data.reading.json_stream import BrokenJson, elements

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.lists(VALUES) | st.dictionaries(st.text(), VALUES), st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
def test_elements_are_those_of_the_whole_document(tmp_path_factory, value, chunk, indent, ascii_only):
    """Whatever is cut where by the end of a chunk."""
    file = tmp_path_factory.mktemp("json") / "a.json"
    expected = [(str(number), item) for number, item in enumerate(value)] if isinstance(value, list) else list(value.items())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", chunk)
        file.write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), encoding="utf-8", errors="surrogatepass")
        if ascii_only:
            assert list(elements(file)) == expected
            file.write_text(json.dumps({"info": {"a": [1, {}]}, "n": -1.5e3, "data": value, "more": []}, indent=indent))
            assert list(elements(file, "data")) == expected
        else:
            assert len(list(elements(file))) == len(expected)


def broken(file: Path, text: str | bytes, key: str | None = None) -> tuple[list, str]:
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    found = []
    with pytest.raises(BrokenJson) as caught:
        found.extend(item for item in iter_into(found, elements(file, key)))
    return found, str(caught.value)


def iter_into(found: list, items):
    for _, value in items:
        found.append(value)
        yield from ()


@pytest.mark.parametrize(
    ("text", "key", "values", "words"),
    [
        ("", None, [], "the file ends early"),
        ("3", None, [], r"from character 0 on \(expected one of \[ \{\)"),
        ("[1, 2", None, [1], r"from character 4 on \(expected one of , \]\)"),
        ("[1, 2,", None, [1, 2], "the file ends early"),
        ("[1 2]", None, [], "expected one of"),
        ("[1, 2], 3]", None, [1, 2], "from character 6 on .the document has ended"),
        ('{"a": [1], 2], "b": 3}', "a", [1], "from character 11 on"),
        ('{"a": [1], "b": 3', "a", [1], "expected one of"),
        ("[1, nul]", None, [1], "Expecting value"),
        ('{"a": 1, 2: 3}', None, [1], "a key is no text"),
        ('{"a": [1, 2]}', "b", [], "it has no 'b'"),
        ('{"b": 3}', "b", [], r"expected one of \[ \{"),
        ("[" * 100_000, None, [], "RecursionError"),
        ("[1, " + "9" * 5000 + "]", None, [1], "ValueError"),
    ],
)
def test_what_is_broken_is_named_with_its_place(tmp_path, text, key, values, words):
    found, message = broken(tmp_path / "a.json", text, key)
    assert found == values
    assert re.search(words, message)


def test_bytes_that_are_no_text_spoil_one_value(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf["a", "\xff", "b"]')
    assert [value for _, value in elements(tmp_path / "a.json")] == ["a", "\udcff", "b"]


def test_memory_does_not_grow_with_the_document(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 10_000)
    peaks = []
    for rows in (2_000, 20_000):
        with (tmp_path / "a.json").open("w") as file:
            file.write('{"data": [' + ", ".join([json.dumps({"question": "What is it?", "answer": "a dog"})] * rows) + "]}")
        tracemalloc.start()
        assert sum(1 for _ in elements(tmp_path / "a.json", "data")) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 200_000  # measured 70,000 for both; the documents have 100,000 and 1,000,000 bytes
