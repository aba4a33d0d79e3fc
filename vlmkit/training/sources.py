"""The data of a stage from shards: a folder for each source, under one directory or address."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from vlmkit.data.mixture import DataSource, Mixture
from vlmkit.data.shards import Shards
from vlmkit.data.shards.places import Place, place
from vlmkit.training.stage import Stage

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor


def mixture(stage: Stage, processor: VLMProcessor, data: Place | str, *, seed: int) -> Mixture:
    """The stage's sources mixed by their weights, in rows as the stage wants them. data: a directory, or an address such as
    s3://bucket/folder. seed: of the run; each stage has an order of its own. Raises DataError where a source has no shards in `data`."""
    sources = [DataSource(source.name, Shards(place(data) / source.name), source.weight) for source in stage.data]
    own = random.Random(f"{seed} {stage.name}").getrandbits(32)
    return Mixture(sources, processor, rows=max(1, stage.batch_size), length=stage.max_length, pack=stage.pack, seed=own)
