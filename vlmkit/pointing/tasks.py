"""PaliGemma's tasks (Beyer et al. 2024, arXiv:2407.07726; ai.google.dev/gemma/docs/paligemma/prompt-system-instructions).

    task                       prompt                        answer
    cap, caption, describe     caption en                    a caption: raw, short, longer
    ocr                        ocr                           what is written in the picture
    answer                     answer en how many cups?      the answer
    question                   question en two               a question to which it is the answer
    detect                     detect cup ; spoon            boxes
    segment                    segment cup ; spoon           boxes with masks

The line break that ends a prompt is the chat template's, not the prompt's. By that page cap, describe, ocr and question are for the
pretrained checkpoints, not for the mixed ones.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from vlmkit.pointing.numbers import brief
from vlmkit.pointing.values import PointingError


class _Task(NamedTuple):
    language: bool
    """Whether a language is named behind the task."""
    takes: str
    """What it is asked about, for errors; empty where it takes nothing."""
    several: bool = False


TASKS: dict[str, _Task] = {
    "cap": _Task(True, ""),
    "caption": _Task(True, ""),
    "describe": _Task(True, ""),
    "ocr": _Task(False, ""),
    "answer": _Task(True, "one question"),
    "question": _Task(True, "one answer"),
    "detect": _Task(False, "one object or several", several=True),
    "segment": _Task(False, "one object or several", several=True),
}
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]+)?")


def paligemma_prompt(task: str, *about: str, language: str | None = None) -> str:
    """paligemma_prompt("detect", "cat", "dog") is "detect cat ; dog"; paligemma_prompt("caption", language="de") is "caption de".

    language: its code, for tasks that name one; English without. Raises PointingError for an unknown task, for more or less than it takes,
    and for text that would end the prompt or divide an object in two.
    """
    if task not in TASKS:
        raise PointingError(f"{task!r} is no task of PaliGemma, expected one of {', '.join(TASKS)}")
    named = TASKS[task]
    if (named.several and not about) or (not named.several and len(about) != bool(named.takes)):
        raise PointingError(f"{task} takes {named.takes or 'nothing'}, got {len(about)}: {brief(', '.join(map(str, about)))}")
    for words in about:
        if words != words.strip() or not words or "\n" in words or (named.several and ";" in words):
            signs = "a line break or a semicolon" if named.several else "a line break"
            raise PointingError(f"{task} takes text without {signs} and without space around it, got {brief(words)}")
    if not named.language:
        if language is not None:
            raise PointingError(f"{task} names no language, got {language!r}")
        return " ".join((task, " ; ".join(about))).rstrip()
    code = "en" if language is None else language
    if not _LANGUAGE.fullmatch(code):
        raise PointingError(f"a language is a code such as 'en', got {code!r}")
    return " ".join((task, code, *about))
