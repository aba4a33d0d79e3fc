"""What a finished run leaves to play with: held-out pictures as files, what was asked about them, and a line that asks again.

    samples/ocr-1.png, ocr-2.png, vqa-1.png, ...
    samples/samples.json   [{"picture": "ocr-1.png", "task": "ocr", "question": ..., "answer": ..., "said": ..., "right": true}, ...]

`said` is what the model says when it is asked as `vlmkit chat` asks, one picture file and one question. Of each task those come first
that it answers rightly then, and not by chance; where there are none, the pictures are those that it answers wrongly, and that is said.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.evaluation.metrics import exact_match
from vlmkit.files import replace_directory

if TYPE_CHECKING:
    import vlmkit
    from vlmkit.evaluation.tasks import Answer, TaskResult

FOLDER, FILE = "samples", "samples.json"
EACH = 4
"""Pictures of a task."""
TRIED_FIRST = ("ocr", "vqa")
"""Tasks whose answers need the picture most: their pictures are in the line that is printed, where one is right."""


def write(run: Path, results: Sequence[TaskResult], model: vlmkit.VLM, processor: vlmkit.VLMProcessor) -> None:
    """Write `samples` of a run's evaluation. The model is asked once for each picture that is kept."""
    samples = []
    with replace_directory(run / FOLDER) as folder:
        for result in results:
            for number, answer in enumerate(_chosen(result.answers), start=1):
                name = f"{result.name}-{number}.png"
                _save(result.task.images[answer.question.image], folder / name)
                question, right = answer.question.question, answer.question.answer
                said = model.chat(processor, folder / name, question) if answer.right else answer.sighted
                sample = {"picture": name, "task": result.name, "question": question, "answer": right, "said": said}
                samples.append(sample | {"right": exact_match(said, right) == 1, "right_without_it": answer.right_blind})
        (folder / FILE).write_text(json.dumps(samples, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def line(run: Path) -> tuple[str, str]:
    """(the command that gets a right answer, what it answers) of a run; empty where the model answered no picture rightly."""
    try:
        samples: list[dict[str, Any]] = json.loads((run / FOLDER / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:  # of an older run
        return "", ""
    right = [sample for sample in samples if sample["right"] and not sample["right_without_it"]]
    right.sort(key=lambda sample: TRIED_FIRST.index(sample["task"]) if sample["task"] in TRIED_FIRST else len(TRIED_FIRST))
    if not right:
        return "", ""
    return shlex.join(["vlmkit", "chat", str(run), str(run / FOLDER / right[0]["picture"]), right[0]["question"]]), right[0]["said"]


def invitation(run: Path) -> str:
    """What is printed at the end of a run."""
    command, said = line(run)
    if command:
        return f"ask it about a held-out picture:\n  {command}\nIt answers {said!r}, which is right; {run / FOLDER} has more."
    return f"It answered no held-out picture in {run / FOLDER} rightly: it was trained too little for a picture to show anything."


def _chosen(answers: Sequence[Answer]) -> list[Answer]:
    """Right ones that were not right without the picture, no picture twice; wrong ones where there are none."""
    seen = [answer for answer in answers if answer.right and not answer.right_blind] or [answer for answer in answers if not answer.right]
    return list({answer.question.image: answer for answer in reversed(seen)}.values())[::-1][:EACH]


def _save(image: Any, file: Path) -> None:
    """As the model saw it, without loss."""
    import numpy as np
    from PIL import Image

    from vlmkit.preprocess.images import decode

    Image.fromarray(np.asarray(decode(image))).save(file, "PNG")
