"""Scores of answers. Pure functions over strings; only the standard library.

Every metric states what it normalises. An error rate is a sum of edits over a sum of reference lengths, so long texts
count more than short ones, and it can exceed 1.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence


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
    """Fewest insertions, deletions and replacements that turn one sequence into the other (Levenshtein 1965).

    >>> edit_distance("kitten", "sitting"), edit_distance(["a", "red", "cat"], ["a", "cat"])
    (3, 1)
    """
    if len(first) < len(second):
        first, second = second, first
    row = list(range(len(second) + 1))
    for i, one in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
    return row[-1]


def character_error_rate(answers: Sequence[str], references: Sequence[str]) -> float:
    """Edits between characters over characters of the references, both after `normalise`."""
    return _error_rate(answers, references, list)


def word_error_rate(answers: Sequence[str], references: Sequence[str]) -> float:
    """Edits between words over words of the references, both after `normalise`; words are split at white space."""
    return _error_rate(answers, references, str.split)


def _error_rate(answers: Sequence[str], references: Sequence[str], units: Callable[[str], Sequence[str]]) -> float:
    """References that are all empty have no length to divide by: the rate is then 0.0 where every answer is empty too,
    and 1.0 where one is not."""
    if len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers for {len(references)} references")
    pairs = [(units(normalise(answer)), units(normalise(reference))) for answer, reference in zip(answers, references, strict=True)]
    edits = sum(edit_distance(answer, reference) for answer, reference in pairs)
    length = sum(len(reference) for _, reference in pairs)
    return edits / length if length else float(edits > 0)
