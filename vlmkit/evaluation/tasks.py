"""Asking a model about images that it never saw, and asking it again with the images swapped among the samples.

What a model scores with a wrong picture it did not get from the picture: the blind score stands beside every score.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.conversation import read_conversation
from vlmkit.data.sample import Sample
from vlmkit.evaluation import answer_files
from vlmkit.evaluation.answer_files import AnswerFile, Key
from vlmkit.evaluation.metrics import exact_match
from vlmkit.evaluation.scoring import CHARACTER_ERRORS, EXACT, WORD_ERRORS, Metric, Score, each, measure

if TYPE_CHECKING:
    from vlmkit.evaluation.asking import Ask
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor
    from vlmkit.training.processes import Processes


@dataclass(frozen=True)
class Question:
    """A question about image number `image` of its task, and the right answer."""

    image: int
    question: str
    answer: str
    answers: tuple[str, ...] = ()
    """All that are right, or what each of several people said; empty where there is only the one."""
    id: str = ""
    """The data set's own."""

    @property
    def references(self) -> tuple[str, ...]:
        return self.answers or (self.answer,)


def plain(text: str) -> str:
    """An answer as it is, without white space around."""
    return text.strip()


@dataclass(frozen=True)
class Task:
    """Images, and questions about them; several may ask about the same one."""

    name: str
    images: tuple[Any, ...]
    """Whatever the processor opens: a path, a PIL image, an array."""
    questions: tuple[Question, ...]
    prompt: str = "{question}"
    """What a model is asked; {question} stands for the question."""
    read: Callable[[str], str] = plain
    """What counts of what a model says."""
    metrics: tuple[Metric, ...] = (EXACT, CHARACTER_ERRORS, WORD_ERRORS)
    """The one that is named first leads."""
    max_new_tokens: int = 64

    def limited(self, count: int) -> Task:
        """At most so many questions, about as many images as can be: the first about each image, then the second, and so on."""
        seen: dict[int, int] = {}
        turns = []
        for number, question in enumerate(self.questions):
            turns.append((seen.setdefault(question.image, 0), number))
            seen[question.image] += 1
        kept = [self.questions[number] for number in sorted(number for _, number in sorted(turns)[:count])]
        places = {image: place for place, image in enumerate(sorted({question.image for question in kept}))}
        questions = tuple(replace(question, image=places[question.image]) for question in kept)
        return replace(self, images=tuple(self.images[image] for image in places), questions=questions)


@dataclass(frozen=True)
class Answer:
    """What the model said: with the right image, and with image number `swapped` instead, where it was asked so."""

    question: Question
    sighted: str
    blind: str | None = None
    swapped: int | None = None

    @property
    def right(self) -> bool:
        return exact_match(self.sighted, self.question.answer) == 1

    @property
    def right_blind(self) -> bool:
        return self.blind is not None and exact_match(self.blind, self.question.answer) == 1


@dataclass(frozen=True)
class TaskResult:
    task: Task
    sighted: Mapping[str, Score]
    """By the names of the task's metrics."""
    blind: Mapping[str, Score] | None
    answers: tuple[Answer, ...]
    each: tuple[float, ...] = ()
    """The first metric of every answer alone."""

    @property
    def name(self) -> str:
        return self.task.name

    def values(self, *, blind: bool = False) -> dict[str, float]:
        """Scores without their intervals; none where nothing was asked blind."""
        return {name: score.value for name, score in ((self.blind or {}) if blind else self.sighted).items()}


def evaluate(
    model: VLM,
    processor: VLMProcessor,
    task: Task,
    *,
    seed: int = 0,
    batch_size: int = 64,
    max_new_tokens: int | None = None,
    blind: bool = True,
    folder: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    processes: Processes | None = None,
    on_batch: Callable[[int], None] = lambda questions: None,
) -> TaskResult:
    """Greedy answers to every question, sighted and blind, and their scores. Answers depend neither on `batch_size` nor on the number of
    processes, up to what rounding does where two tokens are equally likely.

    seed: of the swapped images and of the intervals. max_new_tokens: the task's own without. folder: where answers are kept as they come
    (vlmkit.evaluation.answer_files); an evaluation that was stopped goes on from there. identity: what besides the questions has to be the
    same for that, such as the checkpoint. processes: those that share the work, each with the whole model; all of them get the result.
    `on_batch` is told how many answers this process got just now; those of `folder` first.

    Raises EvaluationError where `folder` holds another evaluation, and ValueError for blind questions about a single image.
    """
    # A task is read without torch; to ask it takes torch.
    from vlmkit.evaluation.asking import ask
    from vlmkit.training.processes import Processes

    together = processes or Processes()
    length = task.max_new_tokens if max_new_tokens is None else max_new_tokens
    order = derangement(len(task.images), random.Random(seed)) if blind else None
    asks = _asks(task, order)
    known: dict[Key, str] = {}
    if folder is not None:
        configuration = {"task": task.name, "questions": _fingerprint(task), "seed": seed, "max_new_tokens": length} | dict(identity or {})
        with together.main_first():
            known = answer_files.begin(folder, configuration)
        on_batch(sum((one.question, one.blind) in known for one in asks) // together.world)
    # All questions about an image go to one process, which encodes it once.
    mine = [one for one in asks if (one.question, one.blind) not in known and one.image % together.world == together.rank]
    prompts = [task.prompt.replace("{question}", question.question) for question in task.questions]
    answered: dict[Key, str] = {}
    with AnswerFile(folder, together.rank) if folder is not None else nullcontext() as file:
        for batch in ask(model, processor, task.images, prompts, mine, batch_size=batch_size, max_new_tokens=length):
            given = [((one.question, one.blind), text) for one, text in batch]
            if file is not None:
                file.add(given)
            answered |= dict(given)
            on_batch(len(given))
    for found in together.gather(answered):
        known |= found
    return result_of(task, known, order, seed=seed)


def result_of(task: Task, said: Mapping[Key, str], order: Sequence[int] | None, *, seed: int = 0) -> TaskResult:
    """Scores of answers that were given: by number of the question and whether it was asked blind. order: the image that was shown in
    place of each."""
    answers = tuple(
        Answer(question, said[number, False])
        if order is None
        else Answer(question, said[number, False], said[number, True], order[question.image])
        for number, question in enumerate(task.questions)
    )
    references = [question.references for question in task.questions]
    images = [question.image for question in task.questions]

    def scores(texts: Iterable[str | None]) -> dict[str, Score]:
        read = [task.read(text or "") for text in texts]
        return {metric.name: measure(metric, read, references, images, seed=seed) for metric in task.metrics}

    sighted = scores(answer.sighted for answer in answers)
    blind = None if order is None else scores(answer.blind for answer in answers)
    alone = each(task.metrics[0], [task.read(answer.sighted) for answer in answers], references)
    return TaskResult(task, sighted, blind, answers, tuple(alone))


def task_from_samples(name: str, samples: Sequence[Sample], limit: int = 0) -> Task:
    """A task of samples with one image each: the first question about it is asked, its answer is the right one. `limit`: at
    most so many, all with 0. Raises ValueError for a sample of another form."""
    images: list[Any] = []
    questions = []
    for sample in (samples[number] for number in range(min(limit or len(samples), len(samples)))):
        asked, answer = question_and_answer(name, sample, 0)
        questions.append(Question(len(images), asked, answer))
        images.append(sample.images[0])
    return Task(name, tuple(images), tuple(questions))


def question_and_answer(name: str, sample: Sample, conversation: int) -> tuple[str, str]:
    """The first turns of a conversation. Raises ValueError for a sample of another form."""
    turns, _ = read_conversation(sample.conversations[conversation])
    turns = tuple(turn for turn in turns if turn.role != "system")
    if len(sample.images) != 1 or [turn.role for turn in turns[:2]] != ["user", "assistant"]:
        raise ValueError(f"{name}, sample {sample.id}: an evaluation takes a question about one image, and its answer")
    asked, answer = ("".join(part for part in turn.content if isinstance(part, str)) for turn in turns[:2])
    return asked, answer


def derangement(count: int, rng: random.Random) -> list[int]:
    """A random order of 0..count-1 in which nothing keeps its place: a single cycle (Sattolo 1986).

    Raises ValueError for a single thing, which has nowhere to go.
    """
    if count == 1:
        raise ValueError("one image cannot be swapped with another; evaluate on two or more")
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = rng.randrange(last)
        order[last], order[other] = order[other], order[last]
    return order


def _asks(task: Task, order: Sequence[int] | None) -> list[Ask]:
    from vlmkit.evaluation.asking import Ask

    sighted = [Ask(number, question.image) for number, question in enumerate(task.questions)]
    if order is None:
        return sighted
    return sighted + [Ask(number, order[question.image], blind=True) for number, question in enumerate(task.questions)]


def _fingerprint(task: Task) -> str:
    """Of what is asked and of the images' names, or their bytes where they have none."""
    digest = hashlib.sha256()
    for image in task.images:
        digest.update(image.name.encode() if isinstance(image, Path) else image if isinstance(image, bytes) else b"?")
    asked = [[question.image, question.question, *question.references] for question in task.questions]
    digest.update(json.dumps([task.prompt, asked]).encode())
    return digest.hexdigest()[:16]
