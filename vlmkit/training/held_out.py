"""What a model makes of samples that it is not trained on, while it is trained.

    scores = HeldOut(stage, processor, {"signs": kept})(model)     # {"signs/loss": ..., "signs/exact": ..., "signs/exact blind": ...}

The loss is taken of all samples, as the stage lays them out. Where they are questions about one image each, they are asked too: greedy
answers, with the right image and with the images swapped among them. Every process asks everything, so scores do not depend on how many
there are, and nothing has to be gathered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmkit.data.mixture import DataSource, Mixture
from vlmkit.data.sample import DataError, Sample
from vlmkit.data.shards import Shards
from vlmkit.data.shards.gathered import Gathered
from vlmkit.data.shards.places import Place
from vlmkit.evaluation.tasks import Task, evaluate, task_from_samples
from vlmkit.layout.laid_out import IGNORE
from vlmkit.preprocess.geometry import Size
from vlmkit.training.copies import to_device
from vlmkit.training.stage import Stage

if TYPE_CHECKING:
    from vlmkit.data.sample import Image
    from vlmkit.processor import VLMProcessor

ASKED = 32
"""Samples of a directory that are looked at, of each source: a look takes seconds, and comes again and again."""


class Chosen:
    """`count` samples of others at equal distances, or all but these, without a list of them."""

    def __init__(self, samples: Shards, count: int, *, rest: bool = False) -> None:
        """Raises DataError where that is more than half of them."""
        if 2 * count > len(samples):
            raise DataError(f"{count} samples cannot be held out of {len(samples)} in {samples.directory}; half of them at most")
        self.samples, self.count, self.rest = samples, count, rest
        self._apart = len(samples) // count

    def __len__(self) -> int:
        return len(self.samples) - self.count if self.rest else self.count

    def _number(self, place: int) -> int:
        if not 0 <= place < len(self):
            raise IndexError(f"there are {len(self)} samples, asked for number {place}")
        if not self.rest:
            return place * self._apart
        between = self._apart - 1  # samples between two that were chosen
        return place + (place // between + 1 if place < between * self.count else self.count)

    def __getitem__(self, place: int, /) -> Sample:
        return self.samples[self._number(place)]

    def without_images(self, place: int) -> Sample:
        return self.samples.without_images(self._number(place))

    def images(self, place: int) -> tuple[Image, ...]:
        return self.samples.images(self._number(place))

    def image_sizes(self, place: int) -> tuple[Size, ...]:
        return self.samples.image_sizes(self._number(place))


def some(samples: Shards, count: int = ASKED) -> Shards | Chosen:
    """At most so many of them; all where that would be more than half."""
    return samples if 2 * count > len(samples) else Chosen(samples, count)


class HeldOut:
    """Calls for the scores of a model."""

    def __init__(self, stage: Stage, processor: VLMProcessor, sources: Mapping[str, Any], *, new_tokens: int = 64) -> None:
        """sources: samples by the name of their source. new_tokens: of the longest answer."""
        self.processor, self.new_tokens = processor, new_tokens
        self._mixtures = {
            # A row at a time: outside of training all its columns go through the LM head. What is rejected here was asked for by nobody.
            name: Mixture([DataSource(name, samples)], processor, rows=1, length=stage.max_length, pack=stage.pack, epochs=1, limit=1.0)
            for name, samples in sources.items()
        }
        self._tasks = [task for name, samples in sources.items() if (task := as_task(name, samples)) is not None]

    def __call__(self, model: Any) -> dict[str, float]:
        scores = {f"{name}/loss": loss for name, mixture in self._mixtures.items() if (loss := self._loss(model, mixture)) is not None}
        return scores | answered(model, self.processor, self._tasks, new_tokens=self.new_tokens)

    def _loss(self, model: Any, mixture: Mixture) -> float | None:
        """Mean over all supervised tokens; None where there are none."""
        total = tokens = 0.0
        for batch in mixture.batches():
            supervised = int((batch["labels"][:, 1:] != IGNORE).sum())
            loss = model(**to_device(batch, model.device), use_cache=False).loss
            if supervised:
                total, tokens = total + loss.item() * supervised, tokens + supervised
        return total / tokens if tokens else None


def answered(model: Any, processor: VLMProcessor, tasks: list[Task], *, new_tokens: int) -> dict[str, float]:
    """Share of answers that are right word for word, and blind: with the images swapped among the samples."""
    scores: dict[str, float] = {}
    for task in tasks:
        result = evaluate(model, processor, task, max_new_tokens=new_tokens)
        scores |= {f"{task.name}/exact": result.values()["exact"], f"{task.name}/exact blind": result.values(blind=True)["exact"]}
    return scores


def held_out(stage: Stage, processor: VLMProcessor, directory: Place) -> HeldOut:
    """The samples in the folders of a directory that are named like sources of the stage. Raises DataError where there is none."""
    from vlmkit.data.shards.index import has_index

    found = {source.name: directory / source.name for source in stage.data if has_index(directory / source.name)}
    if not found:
        raise DataError(f"{directory} has no shards for any source of stage {stage.name!r}: {', '.join(one.name for one in stage.data)}")
    return HeldOut(stage, processor, {name: some(Shards(folder)) for name, folder in found.items()})


def kept_back(stage: Stage, processor: VLMProcessor, data: Place | Gathered, count: int) -> HeldOut:
    """So many samples of each source, which `vlmkit.training.sources.mixture` leaves out."""
    return HeldOut(stage, processor, {source.name: Chosen(Shards(data / source.name), count) for source in stage.data})


def as_task(name: str, samples: Any) -> Task | None:
    try:
        task = task_from_samples(name, samples)
    except ValueError:  # of another form than a question about one image: its loss says enough
        return None
    return task if len(task.images) > 1 else None
