"""SynthText (Gupta et al. 2016, arXiv:1604.06646) read aloud: all words of a picture, in any order, and as a text.

The folder is that of the format `synthtext`, which is published as one set: keep apart what a model is not trained on, and name its
folder. Words stand in no order that a reader could know, so F1 of words in any order leads; error rates beside the order of rendering
stand behind it.
"""

from __future__ import annotations

from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.evaluation.benchmarks import tasks
from vlmkit.evaluation.benchmarks.gathered import Gathered
from vlmkit.evaluation.scoring import CHARACTER_ERRORS, WORD_ERRORS, WORD_F1
from vlmkit.evaluation.tasks import Task


def words(text: str) -> str:
    """All that was read, in one line."""
    return " ".join(text.split())


@tasks.register("synthtext")
def synthtext(folder: Path, *, partial: bool = False) -> Task:
    """SynthText: F1 of words, character and word error rate."""
    found = Gathered("synthtext", partial=partial).samples(formats["synthtext"](folder))
    metrics = (WORD_F1, CHARACTER_ERRORS, WORD_ERRORS)
    return Task("synthtext", found.images, tuple(found.questions), read=words, metrics=metrics, max_new_tokens=128)
