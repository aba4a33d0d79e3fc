"""What is called a difference, held against chance itself and against an independent analysis of variance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vlmkit.comparing.findings import least_difference, not_worse, rank_correlation, spread

SCORES = st.integers(2, 5).flatmap(
    lambda seeds: st.lists(st.lists(st.floats(0, 1), min_size=seeds, max_size=seeds), min_size=2, max_size=6)
)


def test_one_seed_or_one_candidate_says_nothing():
    assert least_difference([[0.1], [0.9]]) is None
    assert least_difference([[0.1, 0.9]]) is None
    assert not_worse({"a": 0.1, "b": 0.9}, None, more_is_better=True) == ["a", "b"]


@given(SCORES, st.floats(-1, 1), st.lists(st.floats(-1, 1), min_size=5, max_size=5))
def test_a_shift_of_all_or_of_a_seed_changes_nothing(scores, shift, easy):
    moved = [[score + shift + easy[seed] for seed, score in enumerate(row)] for row in scores]
    assert math.isclose(least_difference(moved), least_difference(scores), rel_tol=1e-6, abs_tol=1e-9)


def test_it_is_tukeys_of_the_residual_of_blocks():
    scores = np.array([[0.6, 0.7, 0.65], [0.5, 0.55, 0.6], [0.61, 0.68, 0.66], [0.4, 0.52, 0.47]])
    whole = scores.mean()
    total = ((scores - whole) ** 2).sum()
    between = 3 * ((scores.mean(1) - whole) ** 2).sum() + 4 * ((scores.mean(0) - whole) ** 2).sum()
    error = (total - between) / 6
    assert least_difference(scores.tolist()) == pytest.approx(stats.studentized_range.ppf(0.95, 4, 6) * math.sqrt(error / 3), rel=1e-9)


@pytest.mark.parametrize(("candidates", "seeds"), [(4, 2), (3, 3), (2, 4)])
def test_chance_alone_is_a_difference_in_one_of_twenty(candidates, seeds):
    rng = np.random.default_rng(candidates)
    drawn = rng.normal(0.7, 0.02, (2000, candidates, seeds)) + rng.normal(0, 0.1, (2000, 1, seeds))
    called = sum(np.ptp(scores.mean(1)) > least_difference(scores.tolist()) for scores in drawn)
    assert 0.03 < called / 2000 < 0.07


def test_the_best_and_those_that_do_not_differ_from_it():
    means = {"a": 0.9, "b": 0.88, "c": 0.5}
    assert not_worse(means, 0.05, more_is_better=True) == ["a", "b"]
    assert not_worse(means, 0.05, more_is_better=False) == ["c"]
    assert not_worse(means, 0.5, more_is_better=False) == ["a", "b", "c"]


def test_spread():
    assert spread([0.5]) == spread([0.5, 0.5])
    assert spread([0.0, 1.0]).deviation == pytest.approx(math.sqrt(0.5))


@given(st.lists(st.floats(1e-3, 1), min_size=3, max_size=8, unique=True))
def test_the_same_order_is_one_and_the_other_way_round_minus_one(scores):
    assert rank_correlation(scores, [2 * score for score in scores]) == pytest.approx(1)
    assert rank_correlation(scores, [-score for score in scores]) == pytest.approx(-1)


def test_no_order_is_no_number():
    assert rank_correlation([0.1, 0.2], [0.1, 0.2]) is None
    assert rank_correlation([0.1, 0.1, 0.1], [0.1, 0.2, 0.3]) is None
