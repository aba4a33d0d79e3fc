"""PixMo points (Deitke et al. 2024, arXiv:2409.17146): where things are; one sample an image, one conversation a label.

Columns image_url, label, points [{x, y}] in percent of width and height, collection_method. The answer is Molmo's spelling: points
sorted by x, then y, with one digit: <point x="12.5" y="80.0" alt="cup">cup</point>, several in one <points x1=... y1=... x2=...>, none
as "There are none."; a count says how many there are behind them. Labels are in small letters, in question and answer
(olmo/data/data_formatter.py). Images as in `pixmo_cap`. In memory: labels and points of all rows, about 100 bytes and 20 a point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vlmkit.conversation import Conversation
from vlmkit.data.formats import formats
from vlmkit.data.formats.pixmo_cap import image
from vlmkit.data.reading.parquet import parquet_rows
from vlmkit.data.reading.places import files
from vlmkit.data.reading.rows import AnnotationRow, Groups, Unusable, brief, each
from vlmkit.data.reading.urls import Fetch
from vlmkit.data.reading.wording import COUNT, POINTS, ask
from vlmkit.data.sample import DataError, Rejected, Sample
from vlmkit.pointing.molmo import spelled
from vlmkit.pointing.numbers import rounded

ANSWERS = ("points", "counts")
METHODS = ("", "pointing", "counting")
MOST = 10_000
"""Points of a label; the answer that names them would be too long for a conversation."""


@formats.register("pixmo_points")
def read(folder: Path, *, answers: str = "points", method: str = "", fetch: Fetch | None = None) -> Iterator[Sample | Rejected]:
    """answers: "points", or "counts" where the question is how many. method: only rows of this collection_method, "pointing" (a few of a
    thing) or "counting" (many). fetch: gets images that are not on disk; without it they are rejected."""
    check("answers", answers, ANSWERS)
    check("method", method, METHODS)
    source = folder.name
    groups = Groups()
    found = files(folder, "data/*.parquet", "*.parquet")

    def add(row: AnnotationRow) -> None:
        url, label, points, collected = _labelled(row)
        if not method or collected == method:
            groups.add(url, label, points)

    for rejected in each(source, parquet_rows(folder, found, ("image_url", "label", "points", "collection_method")), add):
        if rejected is not None:
            yield rejected
    for url, labelled in groups:
        try:
            shown = image(folder, url, fetch)
        except Unusable as error:
            yield Rejected(source, url, error.reason, error.detail)
            continue
        yield Sample((shown,), tuple(asked(label, points, answers) for label, points in labelled), source, url)


def asked(label: str, points: Sequence[Sequence[float]], answers: str) -> Conversation:
    """A question for points in percent, and the answer."""
    label = label.lower()
    answer = spelled(sorted((rounded(x, 1), rounded(y, 1)) for x, y in points), label)
    if answers == "points":
        return ask(POINTS.format(label=label), answer)
    return ask(COUNT.format(label=label), f"Counting the {answer} shows a total of {len(points)}." if points else answer)


def check(option: str, value: str, known: Sequence[str]) -> None:
    """Raises DataError for an option's value that is not known."""
    if value not in known:
        raise DataError(f"{option} is {brief(value)}, expected one of {', '.join(filter(None, known))}")


def _labelled(row: AnnotationRow) -> tuple[str, str, list[tuple[float, float]], str]:
    points = []
    if len(row.many("points")) > MOST:
        raise row.wrong(f"expected at most {MOST} points, got {len(row.many('points'))}")
    for point in row.many("points"):
        x, y = (point.get("x"), point.get("y")) if isinstance(point, dict) else (None, None)
        # Not a number compares as outside too.
        if not (isinstance(x, int | float) and isinstance(y, int | float) and 0 <= x <= 100 and 0 <= y <= 100):
            raise row.wrong(f"expected points {{x, y}} from 0 to 100, got {brief(point)}")
        points.append((x, y))
    return row.text("image_url"), row.text("label").strip(), points, str(row.get("collection_method"))
