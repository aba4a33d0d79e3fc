"""What a comparison found: means over seeds, and which differences are larger than chance.

All candidates of a seed share weights to begin with, data, their order and the questions, so a seed that is easy is easy for all: what
is left of a score when the mean of its candidate and the deviation of its seed are taken away is chance, and its variance is taken over
all candidates together. Two candidates differ where their means are further apart than Tukey's honestly significant difference at 5 %
(Tukey 1949; the randomised blocks of Fisher 1935): with that bound, in 19 of 20 comparisons without any difference none is found. With one
seed there is no chance to measure, and nothing is called a difference.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.05


@dataclass(frozen=True)
class Spread:
    mean: float
    deviation: float
    """Over seeds, of a sample; 0 with one seed."""


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


def least_difference(scores: Sequence[Sequence[float]]) -> float | None:
    """How far apart two means have to be to differ, from scores (candidates, seeds); None where nothing can be said: one seed, or one
    candidate.

    >>> least_difference([[0.5, 0.7]]) is None
    True
    """
    candidates, seeds = len(scores), len(scores[0])
    if candidates < 2 or seeds < 2:
        return None
    by_seed = [statistics.fmean(column) for column in zip(*scores, strict=True)]
    whole = statistics.fmean(by_seed)
    means = [statistics.fmean(row) for row in scores]
    left = [score - mean - easy + whole for row, mean in zip(scores, means, strict=True) for score, easy in zip(row, by_seed, strict=True)]
    freedom = (candidates - 1) * (seeds - 1)
    variance = math.fsum(value * value for value in left) / freedom
    return _quantile(candidates, freedom) * math.sqrt(variance / seeds)


@functools.cache
def _quantile(candidates: int, freedom: int) -> float:
    """Of the studentized range; scipy integrates for a tenth of a second."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(1 - LEVEL, candidates, freedom))


def not_worse(means: Mapping[str, float], least: float | None, *, more_is_better: bool) -> list[str]:
    """Those that do not differ from the best one, which is among them; all of them where nothing can be said."""
    if least is None:
        return list(means)
    best = max(means.values()) if more_is_better else min(means.values())
    return [name for name, mean in means.items() if abs(mean - best) <= least]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's: 1 where a small budget orders the candidates as a large one does, -1 the other way round. None where one of the two
    gives all the same score, or there are fewer than three candidates."""
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)
