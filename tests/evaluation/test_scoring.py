"""Scores of sets are those of the metrics, and intervals are what resampling pictures gives."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation import drawn
from vlmkit.evaluation.metrics import bleu4, caption_words, character_error_rate, cider_d, vqa_accuracy, word_error_rate
from vlmkit.evaluation.scoring import BLEU_4, CHARACTER_ERRORS, CIDER_D, EXACT, VQA, WORD_ERRORS, each, mean_of, measure

NUMBER = mean_of("number", lambda answer, right: float(answer))
texts = st.text(alphabet="ab ", max_size=6)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6))
def test_error_rates_of_a_set_are_sums_over_sums(pairs):
    answers, right = [one for one, _ in pairs], [[other] for _, other in pairs]
    images = list(range(len(pairs)))
    references = [one for (one,) in right]
    assert measure(CHARACTER_ERRORS, answers, right, images).value == character_error_rate(answers, references)
    assert measure(WORD_ERRORS, answers, right, images).value == word_error_rate(answers, references)
    assert each(CHARACTER_ERRORS, answers, right) == [character_error_rate([one], [other]) for one, other in pairs]


def test_scores_of_captions_and_of_people_are_those_of_the_metrics():
    rows = drawn.captioned()[:60]
    answers, right = [said for said, _ in rows], [references for _, references in rows]
    words = [caption_words(one) for one in answers], [[caption_words(one) for one in captions] for captions in right]
    assert measure(CIDER_D, answers, right, range(60)).value == pytest.approx(float(np.mean(cider_d(*words))), abs=1e-12)
    assert measure(BLEU_4, answers, right, range(60)).value == pytest.approx(bleu4(*words), abs=1e-12)
    people = drawn.asked()[:60]
    found = measure(VQA, [said for said, _ in people], [answers for _, answers in people], range(60))
    assert found.value == pytest.approx(float(np.mean([vqa_accuracy(*one) for one in people])), abs=1e-12)


def test_an_interval_is_the_percentile_bootstrap():
    """scipy draws other samples: both ends within a tenth of the interval's width; measured 0.03."""
    values = np.random.default_rng(0).normal(5, 2, 200)
    score = measure(NUMBER, [str(value) for value in values], [[""]] * 200, range(200))
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=1).confidence_interval
    width = theirs.high - theirs.low
    assert score.value == pytest.approx(float(values.mean()))
    assert (score.low, score.high) == pytest.approx((theirs.low, theirs.high), abs=width / 10)


def test_questions_about_one_picture_come_together():
    """Asking five times the same makes no score surer; five pictures do."""
    answers = [str(number % 7) for number in range(40)]
    once = measure(NUMBER, answers, [[""]] * 40, range(40))
    repeated = measure(NUMBER, answers * 5, [[""]] * 200, list(range(40)) * 5)
    others = measure(NUMBER, answers * 5, [[""]] * 200, range(200))
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))
    assert others.high - others.low < 0.6 * (once.high - once.low)


def test_an_interval_is_that_of_its_seed_and_needs_two_pictures():
    answers, right = ["a", "b", "c", "a"], [["a"]] * 4
    assert measure(EXACT, answers, right, [0, 1, 2, 3], seed=1) == measure(EXACT, answers, right, [0, 1, 2, 3], seed=1)
    assert measure(EXACT, answers, right, [0] * 4) == measure(EXACT, answers, right, [7] * 4)
    assert measure(EXACT, answers, right, [0] * 4).low is None
    assert measure(EXACT, [], [], []).value == 0
    with pytest.raises(ValueError, match="exact: 1 answers for 0 sets of references"):
        measure(EXACT, ["a"], [], [0])
