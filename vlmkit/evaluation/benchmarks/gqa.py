"""GQA (Hudson and Manning 2019, arXiv:1902.09506): questions about what is where in a picture; the share that is right.

The folder is that of the format `gqa`. Published figures are of testdev_balanced; here the answer is compared without case and
punctuation (metrics.gqa_match).
"""

from __future__ import annotations

from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.evaluation.benchmarks import tasks
from vlmkit.evaluation.benchmarks.gathered import SHORT, Gathered, first_line
from vlmkit.evaluation.scoring import GQA
from vlmkit.evaluation.tasks import Task


@tasks.register("gqa")
def gqa(folder: Path, *, split: str = "testdev_balanced", partial: bool = False) -> Task:
    """GQA: share of answers that are right. split: "testdev_balanced", "val_balanced"."""
    found = Gathered("gqa", partial=partial).samples(formats["gqa"](folder, split=split))
    return Task("gqa", found.images, tuple(found.questions), prompt=SHORT, read=first_line, metrics=(GQA,), max_new_tokens=16)
