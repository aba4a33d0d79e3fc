"""How far an answer is from the reference, in characters and in words.

An error rate is a sum of edits over a sum of reference lengths, so long texts count more than short ones, and it can exceed 1.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any


def normalise(text: str) -> str:
    """Compatibility composition (NFKC), case folded, white space runs as one blank, none at the ends.

    >>> normalise("  A  Red\\nCircle ")
    'a red circle'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def exact_match(answer: str, reference: str) -> float:
    """1.0 where both are the same after `normalise`, else 0.0."""
    return float(normalise(answer) == normalise(reference))


def edit_distance(first: Sequence[object], second: Sequence[object]) -> int:
    """Fewest insertions, deletions and replacements that turn one sequence into the other (Levenshtein 1965). rapidfuzz counts them where
    it is installed (the extra `eval`) and both are texts; otherwise the lines below do, some hundred times slower.

    >>> edit_distance("kitten", "sitting"), edit_distance(["a", "red", "cat"], ["a", "cat"])
    (3, 1)
    """
    fast = _rapidfuzz()
    if fast is not None and isinstance(first, str) and isinstance(second, str):
        return int(fast(first, second))
    if len(first) < len(second):
        first, second = second, first
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
    return row[-1]


@functools.cache
def _rapidfuzz() -> Callable[[str, str], Any] | None:
    try:
        from rapidfuzz.distance.Levenshtein import distance
    except ImportError:
        return None
    return distance


def character_error_rate(answers: Sequence[str], references: Sequence[str]) -> float:
    """Edits between characters over characters of the references, both after `normalise`."""
    return _error_rate([character_edits(*pair) for pair in _pairs(answers, references)])


def word_error_rate(answers: Sequence[str], references: Sequence[str]) -> float:
    """Edits between words over words of the references, both after `normalise`; words are split at white space."""
    return _error_rate([word_edits(*pair) for pair in _pairs(answers, references)])


def character_edits(answer: str, reference: str) -> tuple[int, int]:
    """(edits, characters of the reference), both after `normalise`."""
    one, other = normalise(answer), normalise(reference)
    return edit_distance(one, other), len(other)


def word_edits(answer: str, reference: str) -> tuple[int, int]:
    """(edits, words of the reference), both after `normalise`."""
    one, other = normalise(answer).split(), normalise(reference).split()
    numbers: dict[str, str] = {}  # words as characters, so that both are texts
    spelled = ("".join(numbers.setdefault(word, chr(len(numbers))) for word in words) for words in (one, other))
    return edit_distance(*spelled), len(other)


def _pairs(answers: Sequence[str], references: Sequence[str]) -> list[tuple[str, str]]:
    if len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers for {len(references)} references")
    return list(zip(answers, references, strict=True))


def _error_rate(counted: Sequence[tuple[int, int]]) -> float:
    """References that are all empty have no length to divide by: the rate is then 0.0 where every answer is empty too,
    and 1.0 where one is not."""
    edits, length = (sum(counts) for counts in zip(*counted, strict=True)) if counted else (0, 0)
    return edits / length if length else float(edits > 0)
