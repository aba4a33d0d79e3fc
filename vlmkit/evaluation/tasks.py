"""Asking a model about images that it never saw, and asking it again with the images swapped among the samples.

What a model scores with a wrong picture it did not get from the picture: the blind score stands beside every score.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from vlmkit.batch.sample import PreparedSample, RenderedImage
from vlmkit.conversation import read_conversation
from vlmkit.data.sample import Sample
from vlmkit.evaluation.metrics import character_error_rate, exact_match, word_error_rate

if TYPE_CHECKING:
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor


@dataclass(frozen=True)
class Question:
    """A question about image number `image` of its task, and the right answer."""

    image: int
    question: str
    answer: str


@dataclass(frozen=True)
class Task:
    """Images, and questions about them; several may ask about the same one."""

    name: str
    images: tuple[Any, ...]
    """Whatever the processor opens: a path, a PIL image, an array."""
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Answer:
    """What the model said: with the right image, and with image number `swapped` instead."""

    question: Question
    sighted: str
    blind: str
    swapped: int

    @property
    def right(self) -> bool:
        return exact_match(self.sighted, self.question.answer) == 1

    @property
    def right_blind(self) -> bool:
        return exact_match(self.blind, self.question.answer) == 1


@dataclass(frozen=True)
class Scores:
    exact: float
    """Share of answers that are right word for word (metrics.exact_match)."""
    characters: float
    """Character error rate."""
    words: float
    """Word error rate."""


@dataclass(frozen=True)
class TaskResult:
    task: Task
    sighted: Scores
    blind: Scores
    answers: tuple[Answer, ...]

    @property
    def name(self) -> str:
        return self.task.name


def evaluate(
    model: VLM,
    processor: VLMProcessor,
    task: Task,
    *,
    seed: int = 0,
    batch_size: int = 64,
    max_new_tokens: int = 64,
    on_batch: Callable[[int], None] = lambda questions: None,
) -> TaskResult:
    """Greedy answers to every question, sighted and blind. `on_batch` is told how many answers were given just now."""
    order = derangement(len(task.images), random.Random(seed))
    rendered = [processor.render_image(image) for image in task.images]
    own = list(range(len(task.images)))
    sighted = _answers(model, processor, task, rendered, own, batch_size, max_new_tokens, on_batch)
    blind = _answers(model, processor, task, rendered, order, batch_size, max_new_tokens, on_batch)
    answers = tuple(
        Answer(question, seen, guessed, order[question.image])
        for question, seen, guessed in zip(task.questions, sighted, blind, strict=True)
    )
    references = [question.answer for question in task.questions]
    return TaskResult(task, score(sighted, references), score(blind, references), answers)


def task_from_samples(name: str, samples: Sequence[Sample], limit: int = 0) -> Task:
    """A task of samples with one image each: the first question about it is asked, its answer is the right one. `limit`: at
    most so many, all with 0. Raises ValueError for a sample of another form."""
    images: list[Any] = []
    questions = []
    for sample in (samples[number] for number in range(min(limit or len(samples), len(samples)))):
        turns, _ = read_conversation(sample.conversations[0])
        turns = tuple(turn for turn in turns if turn.role != "system")
        if len(sample.images) != 1 or [turn.role for turn in turns[:2]] != ["user", "assistant"]:
            raise ValueError(f"{name}, sample {sample.id}: an evaluation takes a question about one image, and its answer")
        asked, answer = ("".join(part for part in turn.content if isinstance(part, str)) for turn in turns[:2])
        questions.append(Question(len(images), asked, answer))
        images.append(sample.images[0])
    return Task(name, tuple(images), tuple(questions))


def score(answers: Sequence[str], references: Sequence[str]) -> Scores:
    exact = sum(map(exact_match, answers, references)) / max(1, len(references))
    return Scores(exact, character_error_rate(answers, references), word_error_rate(answers, references))


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


@torch.no_grad()
def _answers(
    model: VLM,
    processor: VLMProcessor,
    task: Task,
    images: Sequence[RenderedImage],
    order: Sequence[int],
    batch_size: int,
    max_new_tokens: int,
    on_batch: Callable[[int], None],
) -> list[str]:
    """Answers where a question about image i is asked about image order[i]."""
    model.eval()
    answers = [""] * len(task.questions)
    for group in _groups(task.questions, batch_size):
        samples = []
        for image, numbers in group.items():
            shown = images[order[image]]
            layouts = [processor.lay_out(_ask(task.questions[number].question), (shown,), add_generation_prompt=True) for number in numbers]
            samples.append(PreparedSample((shown,), tuple(layouts)))
        batch = processor.collate(samples, padding_side="left").to(model.device)
        del batch["labels"]
        ids = model.generate(**batch, max_new_tokens=max_new_tokens, do_sample=False)
        texts = processor.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for number, text in zip((number for numbers in group.values() for number in numbers), texts, strict=True):
            answers[number] = text.strip()
        on_batch(len(texts))
    return answers


def _groups(questions: Sequence[Question], size: int) -> Iterator[dict[int, list[int]]]:
    """Numbers of questions by image, in batches of at least `size` questions: an image is encoded once."""
    by_image: dict[int, list[int]] = {}
    for number, question in enumerate(questions):
        by_image.setdefault(question.image, []).append(number)
    group: dict[int, list[int]] = {}
    count = 0
    for image, numbers in by_image.items():
        group[image] = numbers
        count += len(numbers)
        if count >= size:
            yield group
            group, count = {}, 0
    if group:
        yield group


def _ask(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", "image": 0}, {"type": "text", "text": question}]}]
