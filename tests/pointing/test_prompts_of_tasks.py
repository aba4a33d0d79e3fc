from __future__ import annotations

import pytest

from vlmkit.pointing import PointingError, paligemma_prompt
from vlmkit.pointing.tasks import TASKS


@pytest.mark.parametrize(
    ("task", "about", "language", "prompt"),
    [
        ("cap", (), None, "cap en"),
        ("caption", (), None, "caption en"),
        ("caption", (), "pt-BR", "caption pt-BR"),
        ("describe", (), "de", "describe de"),
        ("ocr", (), None, "ocr"),
        ("answer", ("where is the cow?",), None, "answer en where is the cow?"),
        ("question", ("a cow; two",), "fr", "question fr a cow; two"),
        ("detect", ("cat",), None, "detect cat"),
        ("detect", ("cat", "dog"), None, "detect cat ; dog"),
        ("segment", ("red car", "dog"), None, "segment red car ; dog"),
    ],
)
def test_prompts_are_the_published_ones(task, about, language, prompt):
    assert paligemma_prompt(task, *about, language=language) == prompt


def test_every_task_refuses_what_it_does_not_take():
    assert len(TASKS) == 8
    for name, task in TASKS.items():
        with pytest.raises(PointingError, match=f"{name} takes"):
            paligemma_prompt(name, *(() if task.takes else ("a cat",)))


@pytest.mark.parametrize(
    ("task", "about", "language", "reason"),
    [
        ("point", ("cat",), None, "'point' is no task of PaliGemma, expected one of cap, caption"),
        ("answer", ("a?", "b?"), None, "answer takes one question, got 2"),
        ("detect", ("a ; b",), None, "without a line break or a semicolon"),
        ("detect", ("",), None, "detect takes text"),
        ("answer", ("a\nb",), None, "without a line break"),
        ("answer", (" a",), None, "without space around it"),
        ("ocr", (), "en", "ocr names no language, got 'en'"),
        ("detect", ("cat",), "en", "detect names no language"),
        ("caption", (), "English", "a language is a code such as 'en', got 'English'"),
    ],
)
def test_prompts_that_the_model_never_saw_are_refused(task, about, language, reason):
    with pytest.raises(PointingError, match=reason):
        paligemma_prompt(task, *about, language=language)
