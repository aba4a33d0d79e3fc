"""Answers on disk while an evaluation runs, so that it goes on from there however it ended.

    evaluation.json     what is evaluated: another model or other questions are refused
    answers.0.jsonl     {"question": 3, "blind": false, "answer": "nokia"}: one file a process, one line an answer

Lines are on disk before the next batch is asked. Of a file that was cut in the middle of a line the rest of that line is dropped, and its
question asked again. A continued evaluation may have another number of processes: all files are read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vlmkit.files import write_whole, writing

CONFIGURATION = "evaluation.json"
_ANSWERS = "answers.*.jsonl"

Key = tuple[int, bool]
"""Number of a question, and whether it was asked blind."""


class EvaluationError(ValueError):
    """An evaluation that cannot be made, or continued as it is asked for."""


def begin(folder: Path, configuration: Mapping[str, Any]) -> dict[Key, str]:
    """Open a directory, for one process while the others wait: the answers that it holds. Raises EvaluationError where they are another
    evaluation's."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / CONFIGURATION
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = None
    except ValueError:
        raise EvaluationError(f"{file} is no JSON; name another directory, or start anew with --fresh") from None
    told = json.loads(json.dumps(configuration))
    if known is not None and known != told:
        names = sorted({*known, *told}) if isinstance(known, dict) else ["form"]
        other = [name for name in names if not isinstance(known, dict) or known.get(name) != told.get(name)]
        raise EvaluationError(
            f"{folder} holds answers of another evaluation (its {', '.join(other)} differs); name another directory with "
            "--out, or start anew with --fresh"
        )
    if known is None:
        write_whole(file, json.dumps(told, indent=2) + "\n")
    answers: dict[Key, str] = {}
    for path in sorted(folder.glob(_ANSWERS)):
        answers |= _whole_lines(path)
    return answers


def clear(folder: Path) -> None:
    """Forget an evaluation's answers."""
    for path in (*folder.glob(_ANSWERS), folder / CONFIGURATION):
        path.unlink(missing_ok=True)


class AnswerFile:
    """Where a process puts its answers. Use as a context."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._path = folder / f"answers.{rank}.jsonl"
        self._file = self._path.open("ab")

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(self, *unused: object) -> None:
        self._file.close()

    def add(self, answers: Iterable[tuple[Key, str]]) -> None:
        """Append and wait for the disk."""
        with writing(self._path):
            for (question, blind), text in answers:
                line = json.dumps({"question": question, "blind": blind, "answer": text}, ensure_ascii=False)
                self._file.write(line.encode("utf-8", "surrogatepass") + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())


def _whole_lines(path: Path) -> dict[Key, str]:
    """What a file holds; it is cut behind the last line that is whole."""
    answers: dict[Key, str] = {}
    kept = 0
    with path.open("r+b") as file:
        for line in file:
            try:
                row: Any = json.loads(line.decode("utf-8", "surrogatepass")) if line.endswith(b"\n") else None
                answers[int(row["question"]), bool(row["blind"])] = str(row["answer"])
            except (ValueError, TypeError, KeyError):
                break
            kept += len(line)
        file.truncate(kept)
    return answers
