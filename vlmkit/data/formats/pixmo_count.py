"""PixMo counts (Deitke et al. 2024, arXiv:2409.17146): how many of a thing there are; one sample a row of the parquet files.

Columns image_url, label, count, points {x: [...], y: [...]} in pixels of the image, of the training split alone; other splits are read
with answers=number. Questions and answers as in `pixmo_points`. The percent that an answer says follow from the size of the image as it
is opened. Images as in `pixmo_cap`. A few rows are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.data.formats.pixmo_cap import image
from vlmkit.data.formats.pixmo_points import asked, check
from vlmkit.data.reading.parquet import parquet_rows
from vlmkit.data.reading.places import files
from vlmkit.data.reading.rows import AnnotationRow, Unusable, brief, each
from vlmkit.data.reading.urls import Fetch
from vlmkit.data.reading.wording import COUNT, ask
from vlmkit.data.sample import Image, Rejected, Sample

ANSWERS = ("counts", "points", "number")
SPLITS = ("train", "validation", "test")


@formats.register("pixmo_count")
def read(folder: Path, *, split: str = "train", answers: str = "counts", fetch: Fetch | None = None) -> Iterator[Sample | Rejected]:
    """answers: "counts" points and says how many, "points" points, "number" says the number alone. fetch: gets images that are not on
    disk; without it their rows are rejected."""
    check("split", split, SPLITS)
    check("answers", answers, ANSWERS)
    source = folder.name

    def sample(row: AnnotationRow) -> Sample:
        label, shown = row.text("label").strip(), image(folder, row.text("image_url"), fetch)
        if answers == "number":
            return Sample((shown,), (ask(COUNT.format(label=label.lower()), str(_count(row))),), source, row.name)
        return Sample((shown,), (asked(label, _percent(row, shown), answers),), source, row.name)

    found = files(folder, f"data/{split}*.parquet", f"{split}*.parquet")
    yield from each(source, parquet_rows(folder, found, ("image_url", "label", "count", "points")), sample)


def _count(row: AnnotationRow) -> int:
    value = row.get("count")
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise row.wrong(f"expected a whole number 'count' from 0 on, got {brief(value)}")
    return value


def _percent(row: AnnotationRow, shown: Image) -> list[tuple[float, float]]:
    from vlmkit.preprocess.images import ImageError, image_size

    points = row.get("points")
    x, y = (points.get("x"), points.get("y")) if isinstance(points, dict) else (None, None)
    if not (isinstance(x, list) and isinstance(y, list) and len(x) == len(y) == _count(row)):
        raise row.wrong(f"expected points {{x: [...], y: [...]}}, {_count(row)} of them as 'count' says, got {brief(points)}")
    try:
        size = image_size(shown)
    except ImageError as error:
        raise Unusable("image cannot be opened", str(error)) from None
    places = list(zip(x, y, strict=True))
    for place in places:
        across, down = (number if isinstance(number, int | float) else -1 for number in place)
        if not (0 <= across <= size.width and 0 <= down <= size.height):
            raise row.wrong(f"expected points in an image of {size.width}x{size.height} pixels, got {brief(place)}")
    return [(100 * across / size.width, 100 * down / size.height) for across, down in places]
