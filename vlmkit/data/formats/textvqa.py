"""TextVQA (Singh et al. 2019, arXiv:1904.08920): one sample an image, one conversation a question.

TextVQA_<version>_<split>.json lists `data` (image_id, question, answers of ten people, of which the most frequent is taken).
Images of train and val are train_images/<image_id>.jpg, of test test_images/<image_id>.jpg; test has no answers. In memory:
questions and answers, about 100 bytes each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.data.reading.grouped import by_image
from vlmkit.data.reading.places import one_file
from vlmkit.data.reading.rows import AnnotationRow, Rows, Unusable, json_rows
from vlmkit.data.reading.wording import agreed
from vlmkit.data.sample import Rejected, Sample


@formats.register("textvqa")
def read(folder: Path, *, split: str = "train") -> Iterator[Sample | Rejected]:
    """split: "train" or "val"."""
    yield from by_image(folder.name, rows(folder, split), _question, lambda name: image(folder, split, name))


def rows(folder: Path, split: str) -> Rows:
    """Questions as they are published: question_id, image_id, question, answers."""
    file = one_file(folder, f"TextVQA_*_{split}.json", way_out="Name the split, such as split='val'; of two releases keep one")
    return json_rows(folder.name, file, "data")


def image(folder: Path, split: str, name: str) -> Path:
    return folder / ("test_images" if split == "test" else "train_images") / f"{name}.jpg"


def _question(row: AnnotationRow) -> tuple[str, str, str]:
    if row.get("answers") is None:
        raise Unusable("no answer", "a question of a split without answers")
    return row.key("image_id"), row.text("question"), agreed(row.texts("answers"))
