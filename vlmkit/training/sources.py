"""The data of a stage from shards: a folder for each source, under one directory or address."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from vlmkit.data.mixture import DataSource, Mixture
from vlmkit.data.mixture.samples import Samples
from vlmkit.data.shards import Shards
from vlmkit.data.shards.gathered import Gathered
from vlmkit.data.shards.places import Place, place
from vlmkit.training.held_out import Chosen
from vlmkit.training.stage import Stage

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor


def mixture(stage: Stage, processor: VLMProcessor, data: Place | Gathered | str, *, seed: int, hold_out: int = 0) -> Mixture:
    """The stage's sources mixed by their weights, in rows as the stage wants them. data: a directory, or an address such as
    s3://bucket/folder, or several. seed: of the run; each stage has an order of its own. hold_out: samples of each source that are left
    out, for `vlmkit.training.held_out`. Raises DataError where a source has no shards in `data`."""
    where = place(data) if isinstance(data, str) else data

    def samples(name: str) -> Samples:
        found = Shards(where / name)
        return Chosen(found, hold_out, rest=True) if hold_out else found

    sources = [DataSource(source.name, samples(source.name), source.weight) for source in stage.data]
    own = random.Random(f"{seed} {stage.name}").getrandbits(32)
    return Mixture(
        sources,
        processor,
        rows=max(1, stage.batch_size),
        length=stage.max_length,
        pack=stage.pack,
        seed=own,
        weighing=stage.conversations,
    )
