"""GQA (Hudson and Manning 2019, arXiv:1902.09506): one sample an image, one conversation a question; the short answer.

<split>_questions.json, or all files of the folder <split>_questions/, are objects of questions by id (imageId, question,
answer); images are images/<imageId>.jpg. In memory: questions and answers, about 100 bytes each: 1.4 GB for the 14 million of
train_all, 100 MB for the balanced million.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.data.reading.grouped import by_image
from vlmkit.data.reading.places import files
from vlmkit.data.reading.rows import AnnotationRow, Unusable, json_rows
from vlmkit.data.sample import Rejected, Sample


@formats.register("gqa")
def read(folder: Path, *, split: str = "train_balanced") -> Iterator[Sample | Rejected]:
    """split: what a file name begins with: "train_balanced", "train_all", "val_balanced", "testdev_balanced"."""
    source = folder.name
    patterns = [f"{place}{split}_questions{rest}" for place in ("", "questions/") for rest in (".json", "/*.json")]
    found = files(folder, *patterns, way_out="Name the split, such as split='val_balanced'")
    rows = (row for file in found for row in json_rows(source, file))
    yield from by_image(source, rows, _question, lambda name: folder / "images" / f"{name}.jpg")


def _question(row: AnnotationRow) -> tuple[str, str, str]:
    if row.get("answer") is None:
        raise Unusable("no answer", "a question of a split without answers")
    return row.key("imageId"), row.text("question"), row.text("answer")
