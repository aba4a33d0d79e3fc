"""COCO captions (Chen et al. 2015, arXiv:1504.00325): one sentence about a picture, beside what five people wrote.

The folder is that of the format `coco`. Scores: CIDEr-D, BLEU-4 and ROUGE-L over the words of `caption_words`. Published figures are of
Karpathy's test split or of val2017 and say which; METEOR and SPICE are not computed.
"""

from __future__ import annotations

from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.evaluation.benchmarks import tasks
from vlmkit.evaluation.benchmarks.gathered import Gathered, first_line
from vlmkit.evaluation.scoring import BLEU_4, CIDER_D, ROUGE_L
from vlmkit.evaluation.tasks import Task


@tasks.register("coco_captions")
def coco_captions(folder: Path, *, split: str = "val", partial: bool = False) -> Task:
    """COCO captions: CIDEr-D, BLEU-4, ROUGE-L. split: "val2017", "val", "train"."""
    found = Gathered("coco_captions", partial=partial).samples(formats["coco"](folder, split=split), together=True)
    metrics = (CIDER_D, BLEU_4, ROUGE_L)
    return Task("coco_captions", found.images, tuple(found.questions), read=first_line, metrics=metrics)
