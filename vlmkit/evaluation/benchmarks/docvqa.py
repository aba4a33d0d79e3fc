"""DocVQA (Mathew et al. 2021, arXiv:2007.00398): questions about scanned pages; ANLS beside all answers that are right.

The folder is that of the format `docvqa`. The answers of `test` are kept by the Robust Reading Competition; `val` is scored here. Both
variants of ANLS are told, which differ where half of the letters are right (metrics.anls).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlmkit.data.formats.docvqa import page, rows
from vlmkit.data.reading.rows import AnnotationRow
from vlmkit.evaluation.benchmarks import tasks
from vlmkit.evaluation.benchmarks.gathered import SHORT, Gathered, first_line
from vlmkit.evaluation.scoring import ANLS, ANLS_DROPPED
from vlmkit.evaluation.tasks import Task


@tasks.register("docvqa")
def docvqa(folder: Path, *, split: str = "val", partial: bool = False) -> Task:
    """DocVQA: ANLS. split: "val", "train"."""

    def question(row: AnnotationRow) -> tuple[Path, str, Sequence[str], str]:
        return page(folder, split, row.text("image")), row.text("question"), row.texts("answers"), row.key("questionId")

    found = Gathered("docvqa", partial=partial).rows(folder.name, rows(folder, split), question)
    metrics = (ANLS, ANLS_DROPPED)
    return Task("docvqa", found.images, tuple(found.questions), prompt=SHORT, read=first_line, metrics=metrics, max_new_tokens=32)
