"""Each metric beside implementations of others: golden values (golden.py says whose), and packages that the extra `test` brings."""

from __future__ import annotations

import json
import math
from typing import Any

import jiwer
import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.transforms import Bbox

from tests.evaluation import drawn
from tests.evaluation.golden import FILE, REFERENCES, fingerprint
from vlmkit.evaluation.metrics import (
    anls,
    bleu4,
    box_iou,
    caption_words,
    character_error_rate,
    cider_d,
    edit_distance,
    errors,
    gqa_match,
    normalise,
    pointing_accuracy,
    rouge_l,
    vqa_accuracy,
    vqa_normalise,
    word_error_rate,
    word_f1,
)
from vlmkit.evaluation.metrics.captions import BETA
from vlmkit.pointing import Box, Point

GOLDEN: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
EXACT = 1e-12
"""Both add and divide the same whole numbers in another order; the worst measured is 1e-15."""


def test_the_inputs_are_those_of_the_golden_values():
    assert GOLDEN["inputs"] == {name: fingerprint(draw()) for name, draw in drawn.DRAWS.items()}
    assert {reference.__name__ for reference in REFERENCES} | {"inputs"} == set(GOLDEN)
    assert all(len(values) >= 500 for name, values in GOLDEN.items() if name != "inputs")


def test_vqa_accuracy_is_that_of_textvqa():
    found = [vqa_accuracy(said, answers) for said, answers in drawn.asked()]
    assert found == pytest.approx(GOLDEN["vqa_accuracy"], abs=EXACT)
    assert {round(one, 1) for one in found} >= {0.0, 0.3, 0.6, 0.9, 1.0}  # every step of the rule was met


def test_answers_are_normalised_as_textvqa_does():
    said = [said for said, _ in drawn.asked()]
    assert [vqa_normalise(one) for one in said] == GOLDEN["vqa_normalise"]
    assert sum(one != vqa_normalise(one) for one in said) > 300


def test_gqa_match_is_the_match_without_case_and_punctuation():
    found = [gqa_match(said, answers[0]) for said, answers in drawn.asked()]
    assert found == GOLDEN["gqa_match"]
    assert 100 < sum(found) < 500


def test_anls_is_kept_or_dropped_at_the_boundary():
    pairs = drawn.near()
    kept = [anls(said, answers) for said, answers in pairs]
    dropped = [anls(said, answers, boundary="dropped") for said, answers in pairs]
    assert kept == pytest.approx(GOLDEN["anls_kept"], abs=EXACT)
    assert dropped == pytest.approx(GOLDEN["anls_dropped"], abs=EXACT)
    apart = [(one, other) for one, other in zip(kept, dropped, strict=True) if one != other]
    assert set(apart) == {(0.5, 0.0)}
    assert len(apart) > 100


def test_word_f1_is_squads_where_texts_have_neither_articles_nor_punctuation():
    found = [word_f1(said, right) for said, right in drawn.words()]
    assert found == pytest.approx(GOLDEN["word_f1"], abs=1e-7)  # theirs is in single precision: measured 6e-8


def test_caption_words_are_stanfords():
    assert [" ".join(caption_words(text)) for text in drawn.captions()] == GOLDEN["caption_words"]


def split() -> tuple[list[list[str]], list[list[list[str]]]]:
    rows = drawn.captioned()
    return [said.split() for said, _ in rows], [[one.split() for one in references] for _, references in rows]


def test_cider_d_is_cocos():
    found = cider_d(*split())
    assert found == pytest.approx(GOLDEN["cider_d"], abs=1e-12)  # measured 7e-15
    assert len({round(one, 6) for one in found}) > 400


def test_bleu_4_is_cocos():
    said, right = split()
    # pycocoevalcap adds 1e-15 to matches and 1e-9 to their number, so that none is 0.
    found = [bleu4(said[:count], right[:count]) for count in range(2, 52)] + [bleu4(said, right)]
    assert found == pytest.approx([*GOLDEN["bleu4"][:50], GOLDEN["bleu4"][-1]], abs=1e-4)
    counts = [0.0] * 10
    from vlmkit.evaluation.metrics.captions import bleu_counts, bleu_of

    summed = []
    for one, references in zip(said, right, strict=True):
        counts = [a + b for a, b in zip(counts, bleu_counts(one, references), strict=True)]
        summed.append(bleu_of(counts))
    assert summed[1:] == pytest.approx(GOLDEN["bleu4"][: len(summed) - 1], abs=1e-4)


def test_rouge_l_is_cocos():
    found = [rouge_l(said, references) for said, references in zip(*split(), strict=True)]
    assert found == pytest.approx(GOLDEN["rouge_l"], abs=EXACT)


def test_rouge_l_of_one_reference_is_that_of_the_package_of_its_name():
    """Of which precision and recall are taken, as its F counts both once."""
    found = [rouge_l(said, references[:1]) for said, references in zip(*split(), strict=True)]
    theirs = [(1 + BETA**2) * p * r / (r + BETA**2 * p) if p and r else 0.0 for p, r in GOLDEN["rouge_l_of_one"]]
    assert found == pytest.approx(theirs, abs=EXACT)


letters = st.text(alphabet="abC é ", max_size=12)


@settings(max_examples=500)
@given(st.lists(st.tuples(letters, letters), min_size=1, max_size=3))
def test_error_rates_are_jiwers(pairs):
    """Which refuses empty references, and does not normalise."""
    said = [normalise(one) for one, _ in pairs]
    right = [normalise(one) for _, one in pairs]
    assume(all(right))
    assert character_error_rate(*zip(*pairs, strict=True)) == pytest.approx(jiwer.cer(right, said), abs=EXACT)
    assert word_error_rate(*zip(*pairs, strict=True)) == pytest.approx(jiwer.wer(right, said), abs=EXACT)


@settings(max_examples=500)
@given(letters, letters)
def test_edits_are_counted_alike_with_and_without_rapidfuzz(one, other):
    fast = errors._rapidfuzz()
    assert fast is not None
    assert fast(one, other) == edit_distance(list(one), list(other)) == edit_distance(one, other)


numbers = st.integers(-8, 8).map(lambda number: number / 2)
boxes = st.tuples(numbers, numbers, numbers, numbers).map(lambda n: Box(min(n[0], n[2]), min(n[1], n[3]), max(n[0], n[2]), max(n[1], n[3])))


@settings(max_examples=500)
@given(boxes, boxes)
def test_overlap_is_torchvisions(one, other):
    tensors = (torch.tensor([[box.left, box.top, box.right, box.bottom]], dtype=torch.float64) for box in (one, other))
    theirs = float(torchvision.ops.box_iou(*tensors))
    # Two boxes without an area are no number there and 0 here.
    assert box_iou(one, other) == pytest.approx(0.0 if math.isnan(theirs) else theirs, abs=EXACT)
    assert box_iou(one, other) == box_iou(other, one)


@settings(max_examples=500)
@given(st.lists(st.tuples(numbers, numbers, boxes), min_size=1, max_size=4))
def test_a_point_lies_in_a_box_where_matplotlib_says_so(drawn):
    points = [Point(x, y) for x, y, _ in drawn]
    targets = [box for _, _, box in drawn]
    inside = [bool(Bbox.from_extents(box.left, box.top, box.right, box.bottom).contains(x, y)) for x, y, box in drawn]
    assert pointing_accuracy(points, targets) == sum(inside) / len(drawn)
    assert pointing_accuracy([None, *points[1:]], targets) == sum(inside[1:]) / len(drawn)
