"""Questions as tasks gather them from readers: by image, and none lost in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from vlmkit.data.reading.rows import AnnotationRow, each
from vlmkit.data.sample import DataError, Rejected, Sample
from vlmkit.evaluation.tasks import Question, question_and_answer

SHORT = "{question}\nAnswer the question using a single word or phrase."
"""As LLaVA-1.5 was trained and evaluated (Liu et al. 2023, arXiv:2310.03744); most published figures for short answers have these words."""


def first_line(text: str) -> str:
    """An answer up to its first line break: what comes after is explanation."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


class Gathered:
    """Images, each once, and the questions about them."""

    def __init__(self, name: str, *, partial: bool) -> None:
        """partial: whether what cannot be used is left out; otherwise it is an error, for a score of the rest is another score."""
        self.name, self.partial = name, partial
        self.questions: list[Question] = []
        self.rejected: list[Rejected] = []
        self._places: dict[Any, int] = {}

    @property
    def images(self) -> tuple[Any, ...]:
        return tuple(self._places)

    def add(self, image: Any, question: str, answers: Sequence[str], name: str = "") -> None:
        place = self._places.setdefault(image, len(self._places))
        self.questions.append(Question(place, question, answers[0], tuple(answers), name))

    def rows(self, source: str, rows: Iterable[Any], read: Callable[[AnnotationRow], tuple[Path, str, Sequence[str], str]]) -> Gathered:
        """read: a row -> image, question, answers, id."""
        for item in each(source, rows, read):
            if isinstance(item, Rejected):
                self.rejected.append(item)
            elif not item[0].is_file():
                self.rejected.append(Rejected(source, item[3], "image is missing", f"question {item[3]}: there is no {item[0]}"))
            else:
                self.add(*item)
        return self.checked()

    def samples(self, items: Iterable[Sample | Rejected], *, together: bool = False) -> Gathered:
        """Of samples with one image. together: their conversations answer one question, which is asked once."""
        for item in items:
            if isinstance(item, Rejected):
                self.rejected.append(item)
                continue
            pairs = [question_and_answer(self.name, item, number) for number in range(len(item.conversations))]
            if together:
                self.add(item.images[0], pairs[0][0], [answer for _, answer in pairs], item.id)
                continue
            for number, (question, answer) in enumerate(pairs):
                self.add(item.images[0], question, [answer], f"{item.id}/{number}")
        return self.checked()

    def checked(self) -> Gathered:
        """Raises DataError where something was rejected and may not be left out."""
        if self.rejected and not self.partial:
            raise DataError(
                f"task {self.name!r}: {len(self.rejected)} of its questions or images cannot be used, the first because "
                f"{self.rejected[0].detail}. A score of the others is not the published one; --partial (partial=True) leaves them out"
            )
        return self
