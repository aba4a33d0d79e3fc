"""Micro-batches of objectives that want samples otherwise than as conversations: equally many in each, drawn as a mixture draws them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from vlmkit.data.mixture import DataSource
from vlmkit.data.mixture.order import Order
from vlmkit.data.sample import DataError, Sample

TRIES = 20
"""Samples that are tried for one place of a batch."""
APART = 1_000_003
"""Places between two of them, a prime: far beyond a batch, whose samples are not to come twice."""
Make = Callable[[Sequence[Any]], dict[str, Tensor]]
Use = Callable[[Sample, random.Random], Any]
"""What is wanted of a sample, by chance where there is a choice. Raises ValueError, in a few words, for one that does not have it."""


class DrawnSamples(Dataset[dict[str, Tensor]]):
    """Micro-batch n, for any n: `rows` samples, so that processes have equally many. A sample that cannot be used leaves its place to
    another one, which the order would bring later."""

    def __init__(self, sources: Sequence[DataSource], rows: int, seed: int, use: Use, make: Make) -> None:
        weights = [source.weight for source in sources if source.weight is not None]
        self.sources, self.rows, self.seed, self.use, self.make = tuple(sources), rows, seed, use, make
        self.order = Order([len(source.samples) for source in sources], weights or None, seed=seed)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Raises DataError where none of the samples that were tried for a place can be used."""
        return self.make([self._drawn(number * self.rows + row) for row in range(self.rows)])

    def _drawn(self, place: int) -> Any:
        reason = ""
        for attempt in range(TRIES):
            source, sample, _ = self.order[place + attempt * APART]
            try:
                return self.use(self.sources[source].samples[sample], random.Random(f"{self.seed} {place} {attempt}"))
            except OSError:  # storage that fails is no bad sample
                raise
            except ValueError as error:
                reason = f"sample {sample} of {self.sources[source].name!r}: {error}"
        raise DataError(f"none of {TRIES} samples that were drawn for one place of a batch can be used; {reason}")


def captions_of(sample: Sample) -> list[str]:
    """What is said of its images, each text once: the assistant's words of every conversation."""
    found = []
    for conversation in sample.conversations:
        said = [_words(message["content"]) for message in conversation if message["role"] == "assistant"]
        found.append("\n".join(said).strip())
    return [text for text in dict.fromkeys(found) if text]


def _words(content: Any) -> str:
    return content if isinstance(content, str) else "".join(item["text"] for item in content if item.get("type") == "text")
