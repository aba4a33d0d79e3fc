"""What a run leaves to play with: pictures, questions, right answers, and a line that is right."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmkit.evaluation.scoring import Score
from vlmkit.evaluation.tasks import Answer, Question, Task, TaskResult

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "univa"))
playing, report = (importlib.import_module(name) for name in ("playing", "report"))
NOBODY = {"exact": Score(0.0), "characters": Score(1.0), "words": Score(1.0)}


class Reader:
    """Answers with the shade of the picture that it is shown as a file: 7 is "seven"."""

    def __init__(self, *, right: bool = True) -> None:
        self.right = right

    def chat(self, processor: Any, image: Path, question: str) -> str:
        shade = int(np.asarray(Image.open(image))[0, 0, 0])
        return f"shade {shade}" if self.right else "no idea"


def result(name: str, sighted: list[bool], blind: list[bool]) -> TaskResult:
    """A task with a picture a question; which answers were right, with the picture and without."""
    images = tuple(np.full((8, 12, 3), shade, np.uint8) for shade in range(len(sighted)))
    answers = tuple(
        Answer(Question(n, "Which shade?", f"shade {n}"), f"shade {n}" if seen else "?", f"shade {n}" if guessed else "?", 0)
        for n, (seen, guessed) in enumerate(zip(sighted, blind, strict=True))
    )
    return TaskResult(Task(name, images, tuple(answer.question for answer in answers)), NOBODY, NOBODY, answers)


def samples(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "samples" / "samples.json").read_text(encoding="utf-8"))
    return found


def test_the_line_asks_about_a_picture_that_is_answered_rightly(tmp_path):
    run = tmp_path / "my run"
    results = [result("vqa", [True] * 6, [False] * 6), result("ocr", [False, True, True, True], [False, True, False, False])]
    playing.write(run, results, Reader(), None)
    assert [sample["picture"] for sample in samples(run)] == [*(f"vqa-{n}.png" for n in range(1, 5)), "ocr-1.png", "ocr-2.png"]
    for sample in samples(run):
        assert sample["right"]
        assert not sample["right_without_it"]
        assert sample["said"] == sample["answer"] == Reader().chat(None, run / "samples" / sample["picture"], sample["question"])
    command, said = playing.line(run)
    assert shlex.split(command) == ["vlmkit", "chat", str(run), str(run / "samples" / "ocr-1.png"), "Which shade?"]
    assert said == "shade 2", "of two that were right the first that was not guessed"
    assert command in playing.invitation(run)
    assert "Which shade?" in report._try_it(command, said)


@pytest.mark.parametrize("asked_again", [True, False])
def test_where_nothing_is_right_that_is_said(tmp_path, asked_again):
    """Wrong in the evaluation, or when it is asked again as a user would ask."""
    results = [result("ocr", [asked_again] * 3, [False] * 3)]
    playing.write(tmp_path, results, Reader(right=False), None)
    assert len(samples(tmp_path)) == 3
    assert not any(sample["right"] for sample in samples(tmp_path))
    assert playing.line(tmp_path) == ("", "")
    assert "no held-out picture" in playing.invitation(tmp_path)
    assert "No held-out picture" in report._try_it("", "")


def test_a_run_without_an_evaluation_or_of_before_has_no_line(tmp_path):
    assert playing.line(tmp_path) == ("", "")
    playing.write(tmp_path, [], Reader(), None)
    assert (samples(tmp_path), playing.line(tmp_path)) == ([], ("", ""))
