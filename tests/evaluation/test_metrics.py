from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.evaluation import metrics
from vlmkit.evaluation.metrics import character_error_rate, edit_distance, exact_match, normalise, word_error_rate

texts = st.text(alphabet="abC é\n", max_size=8)


@given(texts, texts, texts)
def test_edit_distance_is_a_distance(a, b, c):
    assert edit_distance(a, a) == 0
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))


@given(texts, st.integers(0, 7))
def test_one_edit_is_one(text, place):
    assert edit_distance(text, text[:place] + "x" + text[place:]) == 1


@given(texts)
def test_normalising_twice_is_normalising_once(text):
    assert normalise(normalise(text)) == normalise(text)
    assert exact_match(f" {text.upper()}\n", text) == exact_match(text.upper(), text)


def test_what_counts_as_the_same():
    assert exact_match(" A red\n circle", "a RED circle") == 1
    assert exact_match("ﬁve", "five") == 1
    assert exact_match("a red circle.", "a red circle") == 0


@given(st.lists(st.tuples(texts, texts), max_size=4))
def test_error_rates_are_edits_over_lengths(pairs):
    answers, references = [answer for answer, _ in pairs], [reference for _, reference in pairs]
    edits = sum(edit_distance(normalise(answer), normalise(reference)) for answer, reference in pairs)
    length = sum(len(normalise(reference)) for reference in references)
    rate = character_error_rate(answers, references)
    assert rate == (edits / length if length else float(edits > 0))
    assert character_error_rate(references, references) == word_error_rate(references, references) == 0


def test_error_rates_of_known_texts():
    assert character_error_rate(["cat", "dog"], ["cat", "dig"]) == pytest.approx(1 / 6)
    assert word_error_rate(["the red cat"], ["the cat"]) == pytest.approx(1 / 2)
    assert character_error_rate(["aaaa"], ["b"]) == 4
    assert character_error_rate([""], [""]) == 0
    assert character_error_rate(["x"], [""]) == 1
    with pytest.raises(ValueError, match="1 answers for 2 references"):
        character_error_rate(["a"], ["a", "b"])


def test_the_examples_are_true():
    assert doctest.testmod(metrics).failed == 0


def test_metrics_load_no_torch():
    code = "import sys; import vlmkit.evaluation.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
