"""DocVQA (Mathew et al. 2021, arXiv:2007.00398): one sample a page, one conversation a question.

<split>_v1.0_withQT.json (older: without _withQT) lists `data` (question, image "documents/<page>.png", answers that are all
right, of which the most frequent is taken). Archives differ in their folders: annotations lie at the top, in <split>/ or in
spdocvqa_qas/; pages in documents/, <split>/documents/ or spdocvqa_images/. In memory: questions and answers, about 150 bytes
each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.data.reading.grouped import by_image
from vlmkit.data.reading.places import below, first_there, one_file
from vlmkit.data.reading.rows import AnnotationRow, Rows, Unusable, json_rows
from vlmkit.data.reading.wording import agreed
from vlmkit.data.sample import Rejected, Sample


@formats.register("docvqa")
def read(folder: Path, *, split: str = "train") -> Iterator[Sample | Rejected]:
    """split: "train" or "val"; "test" has no answers."""
    yield from by_image(folder.name, rows(folder, split), _question, lambda name: page(folder, split, name))


def rows(folder: Path, split: str) -> Rows:
    """Questions as they are published: questionId, image, question, answers."""
    names = (f"{split}_v*_withQT.json", f"{split}_v*.json")
    patterns = (f"{place}{name}" for name in names for place in ("", "spdocvqa_qas/", f"{split}/"))
    return json_rows(folder.name, one_file(folder, *patterns, way_out="Name the split, such as split='val'"), "data")


def page(folder: Path, split: str, name: str) -> Path:
    return first_there(below(folder, name), folder / split / name, folder / "spdocvqa_images" / Path(name).name)


def _question(row: AnnotationRow) -> tuple[str, str, str]:
    if row.get("answers") is None:
        raise Unusable("no answer", "a question of a split without answers")
    return row.text("image"), row.text("question"), agreed(row.texts("answers"))
