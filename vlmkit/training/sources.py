"""The data of a stage from shards: a folder for each source, under one directory or address."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils.data import Dataset

from vlmkit.data.mixture import DataSource, Mixture
from vlmkit.data.mixture.samples import Samples
from vlmkit.data.shards import Shards
from vlmkit.data.shards.gathered import Gathered
from vlmkit.data.shards.places import Place, place
from vlmkit.spec import SpecError
from vlmkit.training.held_out import Chosen
from vlmkit.training.stage import Stage

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor
    from vlmkit.training.objectives.task import Task


def stage_data(
    stage: Stage, processor: VLMProcessor, data: Place | Gathered | str, *, seed: int, hold_out: int = 0, task: Task | None = None
) -> Mixture | Dataset[dict[str, Tensor]]:
    """The stage's sources as micro-batches: mixed by their weights, in rows as the stage wants them, or as its objective does. data: a
    directory, or an address such as s3://bucket/folder, or several. seed: of the run; each stage has an order of its own. hold_out: samples
    of each source that are left out, for `vlmkit.training.held_out`. task: of the stage's objective. Raises DataError where a source has no
    shards in `data`."""
    sources = _sources(stage, data, hold_out)
    return mixed(stage, sources, processor, _own(seed, stage)) if task is None else task.data(stage, sources, processor, _own(seed, stage))


def mixture(stage: Stage, processor: VLMProcessor, data: Place | Gathered | str, *, seed: int, hold_out: int = 0) -> Mixture:
    """The same of a stage that is trained for the next token. Raises SpecError for one with an objective."""
    if stage.objective is not None:
        raise SpecError(
            f"stage {stage.name!r} has objective {stage.objective.kind!r}, but what is made here are conversations; leave it out, or train "
            "with 'vlmkit train'"
        )
    return mixed(stage, _sources(stage, data, hold_out), processor, _own(seed, stage))


def _own(seed: int, stage: Stage) -> int:
    return random.Random(f"{seed} {stage.name}").getrandbits(32)


def _sources(stage: Stage, data: Place | Gathered | str, hold_out: int) -> list[DataSource]:
    where = place(data) if isinstance(data, str) else data

    def samples(name: str) -> Samples:
        found = Shards(where / name)
        return Chosen(found, hold_out, rest=True) if hold_out else found

    return [DataSource(source.name, samples(source.name), source.weight) for source in stage.data]


def mixed(stage: Stage, sources: Sequence[DataSource], processor: VLMProcessor, seed: int) -> Mixture:
    """Conversations of the sources in rows as the stage wants them."""
    return Mixture(
        sources,
        processor,
        rows=max(1, stage.batch_size),
        length=stage.max_length,
        pack=stage.pack,
        seed=seed,
        weighing=stage.conversations,
    )
