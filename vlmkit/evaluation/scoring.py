"""Scores of sets of answers: sums over questions, what becomes of the sums, and how sure one may be of it.

Every metric is a function of sums: of a score and a count for a mean, of edits and lengths for an error rate, of matches for BLEU. So the
score of any resampled set is known from its sums, and no answer is looked at twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from vlmkit.evaluation.metrics import anls, gqa_match, rouge_l, vqa_accuracy, word_f1
from vlmkit.evaluation.metrics.captions import bleu_counts, bleu_of, caption_words, cider_d
from vlmkit.evaluation.metrics.errors import character_edits, exact_match, word_edits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[np.float64]

References: TypeAlias = Sequence[Sequence[str]]
"""For each answer the texts that are right."""

RESAMPLES = 1000
AT_ONCE = 50
LEVEL = 0.95


@dataclass(frozen=True)
class Metric:
    """What the answers to Q questions add up to, K numbers each, and the score of such sums."""

    name: str
    parts: Callable[[Sequence[str], References], Sequence[Sequence[float]]]
    """Q answers and their references -> (Q, K)."""
    total: Callable[[Numbers], Numbers]
    """Sums (..., K) -> scores (...)."""
    higher_is_better: bool = True


@dataclass(frozen=True)
class Score:
    """A score, and between which values 95 % of the scores of resampled sets lie; no interval where there is one picture only."""

    value: float
    low: float | None = None
    high: float | None = None


def measure(metric: Metric, answers: Sequence[str], references: References, images: Sequence[int], *, seed: int = 0) -> Score:
    """The score of a set, with its interval: a percentile bootstrap (Efron 1979) over pictures. As many pictures as there are, drawn with
    replacement, 1000 times; the questions about a picture come together, for they are not independent. images: of each question, its
    number.

    What the interval does not hold: another seed of the training, another wording of the prompt. CIDEr-D's weights stay those of the
    whole set.
    """
    import numpy as np

    parts = parts_of(metric, answers, references)
    _, picture = np.unique(np.asarray(images, dtype=np.int64), return_inverse=True)
    count = int(picture.max()) + 1 if len(picture) else 0
    value = float(metric.total(parts.sum(axis=0))) if len(parts) else 0.0
    if count < 2:
        return Score(value)
    summed = np.zeros((count, parts.shape[1]))
    np.add.at(summed, picture, parts)
    rng = np.random.default_rng(seed)
    even = np.full(count, 1 / count)
    drawn = [metric.total(rng.multinomial(count, even, size=AT_ONCE).astype(np.float64) @ summed) for _ in range(RESAMPLES // AT_ONCE)]
    low, high = np.quantile(np.concatenate(drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Score(value, float(low), float(high))


def each(metric: Metric, answers: Sequence[str], references: References) -> list[float]:
    """The score of every answer as if it stood alone."""
    return [float(metric.total(row)) for row in parts_of(metric, answers, references)]


def parts_of(metric: Metric, answers: Sequence[str], references: References) -> Numbers:
    """(Q, K). Raises ValueError where there is not one set of references for every answer."""
    import numpy as np

    if len(answers) != len(references):
        raise ValueError(f"{metric.name}: {len(answers)} answers for {len(references)} sets of references")
    rows = metric.parts(answers, references)
    return np.asarray(rows, dtype=np.float64).reshape(len(answers), -1) if answers else np.zeros((0, 1))


def mean_of(name: str, score: Callable[[str, Sequence[str]], float], *, higher_is_better: bool = True) -> Metric:
    """The mean of a function of one answer and its references: `mean_of("length", lambda answer, right: len(answer))`."""
    return Metric(name, lambda answers, right: [(score(*pair), 1.0) for pair in zip(answers, right, strict=True)], _ratio, higher_is_better)


def _rate_of(name: str, edits: Callable[[str, str], tuple[int, int]]) -> Metric:
    """Edits over lengths, beside the first reference."""
    return Metric(name, lambda answers, right: [edits(one, others[0]) for one, others in zip(answers, right, strict=True)], _rate, False)


def _ratio(sums: Numbers) -> Numbers:
    import numpy as np

    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1.0))


def _rate(sums: Numbers) -> Numbers:
    """References without length: 0 where there are no edits either, else 1."""
    import numpy as np

    edits, length = sums[..., 0], sums[..., 1]
    return np.where(length > 0, edits / np.where(length > 0, length, 1.0), (edits > 0).astype(np.float64))


def _cider(answers: Sequence[str], right: References) -> list[tuple[float, float]]:
    said = [caption_words(one) for one in answers]
    return [(score, 1.0) for score in cider_d(said, [[caption_words(one) for one in captions] for captions in right])]


def _bleu(answers: Sequence[str], right: References) -> list[tuple[float, ...]]:
    return [bleu_counts(caption_words(one), [caption_words(a) for a in captions]) for one, captions in zip(answers, right, strict=True)]


EXACT = mean_of("exact", lambda answer, right: max(exact_match(answer, one) for one in right))
CHARACTER_ERRORS = _rate_of("characters", character_edits)
WORD_ERRORS = _rate_of("words", word_edits)
VQA = mean_of("vqa_accuracy", vqa_accuracy)
GQA = mean_of("gqa_match", lambda answer, right: gqa_match(answer, right[0]))
ANLS = mean_of("anls", anls)
ANLS_DROPPED = mean_of("anls_dropped", lambda answer, right: anls(answer, right, boundary="dropped"))
WORD_F1 = mean_of("word_f1", lambda answer, right: word_f1(answer, right[0]))
CIDER_D = Metric("cider_d", _cider, _ratio)


def _bleu_total(sums: Numbers) -> Numbers:
    import numpy as np

    return np.asarray(np.apply_along_axis(lambda row: bleu_of(row.tolist()), -1, sums))


BLEU_4 = Metric("bleu_4", _bleu, _bleu_total)
ROUGE_L = mean_of("rouge_l", lambda answer, right: rouge_l(caption_words(answer), [caption_words(one) for one in right]))
