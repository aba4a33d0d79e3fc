"""Samples whose score is not within bounds are left out: a toxicity, a similarity of picture and words, a loss.

The scores were made before, by whatever makes them, and stand in a file of JSON lines: {"id": "000001", "score": 0.03}.
"""

from __future__ import annotations

import json
import math

from vlmkit.data.filters import Filter, filters
from vlmkit.data.filters.listed import lines, names
from vlmkit.data.sample import DataError, Sample


@filters.register("scored")
def scored(*, file: str, below: float = math.inf, least: float = -math.inf, key: str = "id", field: str = "score") -> Filter:
    """file: of scores, a JSON object a line. below, least: a sample is kept with least <= score < below. key, field: what the name of the
    sample or of its image is called there, and the score. A sample without a score is left out. Raises DataError."""
    scores = dict(_score(file, number, line, key, field) for number, line in enumerate(lines(file), start=1))

    def keep(sample: Sample) -> str | None:
        score = next((scores[name] for name in names(sample) if name in scores), None)
        if score is None:
            return "it has no score"
        if not score < below:
            return f"its {field} is not below {below:g}"
        return None if score >= least else f"its {field} is below {least:g}"

    return keep


def _score(file: str, number: int, line: str, key: str, field: str) -> tuple[str, float]:
    try:
        row = json.loads(line)
        name, score = row[key], row[field]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise DataError(f"{file}, line {number}: expected an object with {key!r} and {field!r}, got {line[:80]!r}") from None
    if not isinstance(score, int | float) or isinstance(score, bool) or math.isnan(score):
        raise DataError(f"{file}, line {number}: {field!r} is {score!r}, expected a number")
    return str(name), float(score)
