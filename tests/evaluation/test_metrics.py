from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.evaluation.metrics import (
    anls,
    answers,
    box_iou,
    captions,
    character_error_rate,
    cider_d,
    edit_distance,
    errors,
    exact_match,
    gqa_match,
    normalise,
    places,
    pointing_accuracy,
    rouge_l,
    vqa_accuracy,
    word_error_rate,
    word_f1,
)
from vlmkit.pointing import Box

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


@pytest.mark.parametrize("module", [answers, captions, errors, places])
def test_the_examples_are_true(module):
    tried = doctest.testmod(module)
    assert tried.attempted
    assert tried.failed == 0


def test_what_stands_at_the_edge():
    assert vqa_accuracy("x", ["x", "x"]) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="leaves out one person of several, got 1 answers"):
        vqa_accuracy("x", ["x"])
    assert anls("", [""]) == word_f1("", " ") == gqa_match("", ".") == 1
    with pytest.raises(ValueError, match="one right answer or more"):
        anls("x", [])
    assert cider_d([["a", "b"]], [[["a", "b"]]]) == [0.0]  # one picture: no word is rare
    assert cider_d([[]], [[["a"]]]) == [0.0]
    with pytest.raises(ValueError, match="1 answers for 1 sets of references, each of one caption or more"):
        cider_d([["a"]], [[]])
    assert rouge_l([], [["a"]]) == rouge_l(["a"], [["b"]]) == 0
    assert box_iou(Box(1, 1, 1, 1), Box(1, 1, 1, 1)) == 0
    assert pointing_accuracy([], []) == 0
    with pytest.raises(ValueError, match="0 points for 1 targets"):
        pointing_accuracy([], [Box(0, 0, 1, 1)])


def test_bleu_without_sacrebleu_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(ImportError, match=r"pip install 'vlmkit\[eval\]'"):
        captions.bleu4([["a"]], [[["a"]]])


def test_metrics_load_no_torch():
    code = "import sys; import vlmkit.evaluation.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
