"""Rendered pictures: drawn as they are needed for the warm-ups, once into shards for the published stages, and as an evaluation."""

from __future__ import annotations

import io
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vlmkit.batch.sample import PreparedSample
from vlmkit.conversation import Conversation
from vlmkit.data.sample import Sample
from vlmkit.data.shards import ShardWriter
from vlmkit.data.shards.index import INDEX
from vlmkit.drawn.render import GRIDS, Kind, Picture, Question, picture_at
from vlmkit.evaluation import tasks
from vlmkit.features import Grid
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


# --- for the warm-ups: labels that no conversation holds ---------------------------------------------------------------


class PictureBatches(Dataset[Batch]):
    """Batch n holds pictures n * batch_size and on, all of one size; `make` turns them into tensors. It is the same in every
    run and every process."""

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
            picture, pixels = picture_at(self.seed, first + place, SOURCES[name].kind, grid)
            pictures.append((picture, pixels, _drawn(SOURCES[name], picture, rng)))
        return self.make(self.processor, pictures)


def typed_pages(processor: VLMProcessor, pictures: Pictures) -> Batch:
    """Conversations without a pixel: in each visual token's place stands the character of its cell."""
    samples = prepared(processor, pictures)
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


WARM_UP = {"warmup-tower": cells, "warmup-text": typed_pages}
"""What a batch of these stages is made by."""


# --- for the published stages: shards ----------------------------------------------------------------------------------


def counts(stages: Iterable[Stage]) -> dict[str, int]:
    """Pictures of each source: as many as the stages show."""
    shown: Counter[str] = Counter()
    for stage in stages:
        total = sum(source.weight for source in stage.data)
        for source in stage.data:
            shown[source.name] += math.ceil(stage.steps * stage.batch_size * source.weight / total)
    return dict(shown)


def write_shards(folder: Path, source: str, count: int, seed: int, written: Callable[[], None] = lambda: None) -> None:
    """Render `count` pictures of a source, unless that was done before."""
    if (folder / INDEX).is_file():
        return
    with ShardWriter(folder, job={"source": source, "count": count, "seed": seed}) as writer:
        for index in range(writer.samples, count):
            writer.write(sample_at(source, index, seed), whole=False)
            written()


def sample_at(source: str, index: int, seed: int) -> Sample:
    """A picture as a JPEG, and what is asked and said about it."""
    rng = random.Random(f"{seed} {source} {index}")
    picture, pixels = picture_at(rng.getrandbits(32), index, SOURCES[source].kind, rng.choice(GRIDS))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    asked = _drawn(SOURCES[source], picture, rng)
    return Sample((file.getvalue(),), tuple(_conversation(question) for question in asked), source, str(index))


# --- for the evaluation ------------------------------------------------------------------------------------------------


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


# --- for all of them ---------------------------------------------------------------------------------------------------


def prepared(processor: VLMProcessor, pictures: Pictures) -> list[PreparedSample]:
    """What the model is trained on: pictures, questions about them and the answers."""
    samples = []
    for _, pixels, questions in pictures:
        image = processor.render_image(pixels)
        samples.append(PreparedSample((image,), tuple(processor.lay_out(_conversation(question), (image,)) for question in questions)))
    return samples


def _drawn(asked: Asked, picture: Picture, rng: random.Random) -> list[Question]:
    one, *others = picture.questions()
    return [one] * asked.first + rng.sample(others, min(asked.others, len(others)))


def _conversation(question: Question) -> Conversation:
    content = [{"type": "image", "image": 0}, {"type": "text", "text": question.text}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": question.answer}]


def _typed(page: np.ndarray, grid: Grid) -> Tensor:
    """The page's character at each visual token: its own where a token is a cell, the nearest cell's with other connectors."""
    rows = np.arange(grid.rows) * page.shape[0] // grid.rows
    columns = np.arange(grid.columns) * page.shape[1] // grid.columns
    nearest = page[rows[:, None], columns].flatten()
    return torch.from_numpy(nearest).long()
