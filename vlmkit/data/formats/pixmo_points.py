"""PixMo points (Deitke et al. 2024, arXiv:2409.17146): where things are; one sample an image, one conversation a label.

Columns image_url, label, points [{x, y}] in percent of width and height. The answer is Molmo's spelling: points sorted by x,
then y, with one digit: <point x="12.5" y="80.0" alt="cup">cup</point>, several in one <points x1=... y1=... x2=...>, none as
"There are none." Images as in `pixmo_cap`. In memory: labels and points of all rows, about 100 bytes and 20 a point.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.data.formats.pixmo_cap import image
from vlmkit.data.reading.parquet import parquet_rows
from vlmkit.data.reading.places import files
from vlmkit.data.reading.rows import AnnotationRow, Groups, Unusable, brief, each
from vlmkit.data.reading.urls import Fetch
from vlmkit.data.reading.wording import POINTS, ask
from vlmkit.data.sample import Rejected, Sample
from vlmkit.pointing.molmo import spelled


@formats.register("pixmo_points")
def read(folder: Path, *, fetch: Fetch | None = None) -> Iterator[Sample | Rejected]:
    """fetch: gets images that are not on disk; without it they are rejected."""
    source = folder.name
    groups = Groups()
    found = files(folder, "data/*.parquet", "*.parquet")
    for item in each(source, parquet_rows(folder, found, ("image_url", "label", "points")), _labelled):
        if isinstance(item, Rejected):
            yield item
        else:
            groups.add(*item)
    for url, labelled in groups:
        try:
            shown = image(folder, url, fetch)
        except Unusable as error:
            yield Rejected(source, url, error.reason, error.detail)
            continue
        yield Sample((shown,), tuple(ask(POINTS.format(label=label), answer) for label, answer in labelled), source, url)


def _labelled(row: AnnotationRow) -> tuple[str, str, str]:
    points = []
    for point in row.many("points"):
        x, y = (point.get("x"), point.get("y")) if isinstance(point, dict) else (None, None)
        # Not a number compares as outside too.
        if not (isinstance(x, int | float) and isinstance(y, int | float) and 0 <= x <= 100 and 0 <= y <= 100):
            raise row.wrong(f"expected points {{x, y}} from 0 to 100, got {brief(point)}")
        points.append((round(x, 1), round(y, 1)))
    label = row.text("label").strip()
    return row.text("image_url"), label, spelled(sorted(points), label)
