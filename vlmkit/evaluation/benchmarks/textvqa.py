"""TextVQA (Singh et al. 2019, arXiv:1904.08920): questions about what is written in a picture; agreement with ten people.

The folder is that of the format `textvqa`. No recognised text is given to the model, as some published figures do (those of LLaVA-1.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlmkit.data.formats.textvqa import image, rows
from vlmkit.data.reading.rows import AnnotationRow
from vlmkit.evaluation.benchmarks import tasks
from vlmkit.evaluation.benchmarks.gathered import SHORT, Gathered, first_line
from vlmkit.evaluation.scoring import VQA
from vlmkit.evaluation.tasks import Task


@tasks.register("textvqa")
def textvqa(folder: Path, *, split: str = "val", partial: bool = False) -> Task:
    """TextVQA: agreement with ten people. split: "val", "train"."""

    def question(row: AnnotationRow) -> tuple[Path, str, Sequence[str], str]:
        answers = row.texts("answers")
        if len(answers) < 2:
            raise row.wrong(f"expected the answers of several people, got {len(answers)}")
        return image(folder, split, row.key("image_id")), row.text("question"), answers, row.key("question_id")

    found = Gathered("textvqa", partial=partial).rows(folder.name, rows(folder, split), question)
    return Task("textvqa", found.images, tuple(found.questions), prompt=SHORT, read=first_line, metrics=(VQA,), max_new_tokens=16)
