"""Rendered pictures as training batches and as an evaluation. Batch number n is the same in every run and every process."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from render import GRIDS, Kind, Picture, Question, picture_at
from torch import Tensor
from torch.utils.data import Dataset

from vlmkit.evaluation import tasks
from vlmkit.features import Grid
from vlmkit.processor import PreparedSample as Sample
from vlmkit.training.stage import Stage

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor


@dataclass(frozen=True)
class Asked:
    """What a source of the mix is made of: a kind of picture, and what is asked about each."""

    kind: Kind
    first: bool = True
    """The description of a scene, or what a word says."""
    others: int = 0
    """Questions drawn from all the others that the picture answers. All questions share its visual tokens."""


SOURCES = {
    "letters": Asked("lines", first=False),
    "words": Asked("word"),
    "captions": Asked("scene"),
    "pairs": Asked("pair"),
    "answers": Asked("scene", first=False, others=1),
    "pair-answers": Asked("pair", first=False, others=1),
    "questions": Asked("scene", others=2),
}

Pictures = list[tuple[Picture, np.ndarray, list[Question]]]
Batch = dict[str, Tensor]


class PictureBatches(Dataset[Batch]):
    """Batch n holds pictures n * batch_size and on, all of one size; `make` turns them into tensors."""

    def __init__(self, processor: VLMProcessor, stage: Stage, seed: int, make: Callable[[VLMProcessor, Pictures], Batch]) -> None:
        self.processor = processor
        self.stage = stage
        self.seed = random.Random(f"{seed} {stage.name}").getrandbits(32)
        self.make = make

    def __getitem__(self, number: int) -> Batch:
        rng = random.Random(f"{self.seed} {number}")
        grid = rng.choice(GRIDS)
        names, weights = zip(*((source.name, source.weight) for source in self.stage.data), strict=True)
        chosen = rng.choices(names, weights, k=self.stage.batch_size)
        first = number * self.stage.batch_size
        pictures = []
        for place, name in enumerate(chosen):
            asked = SOURCES[name]
            picture, pixels = picture_at(self.seed, first + place, asked.kind, grid)
            one, *others = picture.questions()
            pictures.append((picture, pixels, [one] * asked.first + rng.sample(others, min(asked.others, len(others)))))
        return self.make(self.processor, pictures)


def questions_and_answers(processor: VLMProcessor, pictures: Pictures) -> Batch:
    """What the model is trained on: pictures, questions about them and the answers."""
    return dict(processor.collate(_samples(processor, pictures)))


def typed_pages(processor: VLMProcessor, pictures: Pictures) -> Batch:
    """The same conversations without a pixel: in each visual token's place stands the character of its cell."""
    samples = _samples(processor, pictures)
    batch = dict(processor.collate(samples))
    grids = [grid for sample in samples for image in sample.images for grid in image.tokens.grids]
    typed = torch.cat([_typed(picture.page(), grid) for (picture, _, _), grid in zip(pictures, grids, strict=True)])
    places = batch["visual_index"]
    batch["input_ids"] = torch.where(places >= 0, typed[places.clamp(min=0)], batch["input_ids"])
    batch["grids"] = torch.tensor([(grid.frames, grid.rows, grid.columns) for grid in grids])
    del batch["pixel_values"]
    return batch


def cells(processor: VLMProcessor, pictures: Pictures) -> Batch:
    """Pictures, and the character that stands in each 28 x 28 cell: what the tower is warmed up on."""
    images = [processor.render_image(pixels) for _, pixels, _ in pictures]
    return {
        "pixel_values": torch.cat([image.pixel_values for image in images]),
        "grids": torch.cat([image.grids for image in images]),
        "cells": torch.cat([torch.from_numpy(picture.page()).flatten() for picture, _, _ in pictures]).long(),
    }


def evaluation_tasks(count: int) -> list[tasks.Task]:
    """`count` pictures a task, with words that are held out from training, and at most two questions about each."""
    kinds: list[tuple[str, Kind]] = [("description", "scene"), ("vqa", "scene"), ("ocr", "word")]
    return [_task(name, kind, count, seed=0xE7A1 + number) for number, (name, kind) in enumerate(kinds, start=1)]


def _task(name: str, kind: Kind, count: int, seed: int) -> tasks.Task:
    pictures = [picture_at(seed, index, kind, GRIDS[index % len(GRIDS)], held_out=True) for index in range(count)]
    rng = random.Random(seed)
    asked = []
    for number, (picture, _) in enumerate(pictures):
        questions = [question for question in picture.questions() if question.task == name]
        asked += [tasks.Question(number, q.text, q.answer) for q in rng.sample(questions, min(2, len(questions)))]
    return tasks.Task(name, tuple(pixels for _, pixels in pictures), tuple(asked))


def _samples(processor: VLMProcessor, pictures: Pictures) -> list[Sample]:
    samples = []
    for _, pixels, questions in pictures:
        image = processor.render_image(pixels)
        samples.append(Sample((image,), tuple(processor.lay_out(_conversation(question), (image,)) for question in questions)))
    return samples


def _conversation(question: Question) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": 0}, {"type": "text", "text": question.text}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": question.answer}]


def _typed(page: np.ndarray, grid: Grid) -> Tensor:
    """The page's character at each visual token: its own where a token is a cell, the nearest cell's with other connectors."""
    rows = np.arange(grid.rows) * page.shape[0] // grid.rows
    columns = np.arange(grid.columns) * page.shape[1] // grid.columns
    nearest = page[rows[:, None], columns].flatten()
    return torch.from_numpy(nearest).long()
