"""What all candidates learn from and how they are asked: the same samples in the same order, the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vlmkit.preprocess.geometry import Size
from vlmkit.training.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    from vlmkit.data.mixture import Mixture
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor


class World(Protocol):
    stages: tuple[Stage, ...]
    """Those that every candidate goes through."""
    warm_up: tuple[Stage, ...]
    """Those before, which a tower and a language model go through once for all candidates that have them."""

    @property
    def measure(self) -> str:
        """What a score is: 'right' (a share, more is better) or 'loss' (less is better)."""

    def description(self) -> dict[str, Any]:
        """What the results follow from, as JSON."""

    def begin(self, model: VLM) -> None:
        """What is done to random weights before they are warmed up."""

    def prepare(self, folder: Path, seed: int) -> None:
        """Write what is read of a seed; done before, it does nothing."""

    def batches(self, stage: Stage, processor: VLMProcessor, folder: Path, seed: int) -> Mixture | Dataset[dict[str, Tensor]]: ...

    def further(self, stage: Stage, model: VLM) -> dict[str, Any]:
        """What the trainer is given beside a stage."""

    def scores(self, model: VLM, processor: VLMProcessor) -> dict[str, float]:
        """Of held-out samples, by task."""

    def sizes(self) -> list[Size]:
        """Of the images that are asked about."""


class DrawnWorld:
    """Pictures that are drawn from numbers (vlmkit.drawn), which a small model learns to read in minutes."""

    measure = "right"

    def __init__(self, scale: float = 1.0, pictures: int = 100, warm_up: float = 1.0) -> None:
        """scale: fraction of the steps of the stages behind the warm-up. pictures: held-out ones of each task. warm_up: fraction of the
        steps of the warm-up."""
        from vlmkit.drawn.pictures import WARM_UP
        from vlmkit.drawn.stages import STAGES

        self.scale, self.pictures, self.warmed = scale, pictures, warm_up
        self.warm_up = tuple(stage.scaled(warm_up) for stage in STAGES if stage.name in WARM_UP)
        self.stages = tuple(stage.scaled(scale) for stage in STAGES if stage.name not in WARM_UP)

    def description(self) -> dict[str, Any]:
        stages = [stage.to_dict() for stage in (*self.warm_up, *self.stages)]
        return {"world": "drawn", "pictures": self.pictures, "warm_up": self.warmed, "stages": stages}

    def begin(self, model: VLM) -> None:
        from vlmkit.drawn import warm_up

        warm_up.begin(model)

    def prepare(self, folder: Path, seed: int) -> None:
        """As many pictures as the stages show; a shorter study reads the first of them."""
        from vlmkit.drawn import pictures

        for source, count in pictures.counts(self.stages).items():
            pictures.write_shards(folder / source, source, count, seed)

    def batches(self, stage: Stage, processor: VLMProcessor, folder: Path, seed: int) -> Any:
        from vlmkit.drawn import pictures
        from vlmkit.training.sources import mixture

        if stage.name in pictures.WARM_UP:
            return pictures.PictureBatches(processor, stage, seed, pictures.WARM_UP[stage.name])
        return mixture(stage, processor, folder, seed=seed)

    def further(self, stage: Stage, model: VLM) -> dict[str, Any]:
        from vlmkit.drawn import warm_up

        return warm_up.trainer_arguments(stage, model)

    def scores(self, model: VLM, processor: VLMProcessor) -> dict[str, float]:
        from vlmkit.drawn.pictures import evaluation_tasks
        from vlmkit.evaluation.tasks import evaluate

        tasks = evaluation_tasks(self.pictures)
        return {task.name: evaluate(model, processor, task, blind=False).values()["exact"] for task in tasks}

    def sizes(self) -> list[Size]:
        from vlmkit.drawn.pictures import evaluation_tasks

        return [Size(*image.shape[:2]) for task in evaluation_tasks(self.pictures) for image in task.images]


class ShardsWorld:
    """One's own shards and stages; some samples of each source are kept out of the training and asked about."""

    def __init__(self, stages: tuple[Stage, ...], data: Path, hold_out: int, scale: float = 1.0) -> None:
        """Raises ValueError for stages of packed rows."""
        packed = [stage.name for stage in stages if stage.pack]
        if packed:
            raise ValueError(f"stage {packed[0]!r} packs rows, which hold more samples where a candidate has fewer tokens; leave pack out")
        self.data, self.hold_out, self.scale = data, hold_out, scale
        self.warm_up: tuple[Stage, ...] = ()
        self.stages = tuple(stage.scaled(scale) for stage in stages)

    @property
    def measure(self) -> str:
        return "right" if self._asked() else "loss"

    def description(self) -> dict[str, Any]:
        stages = [stage.to_dict() for stage in self.stages]
        return {"world": str(self.data.resolve()), "hold_out": self.hold_out, "stages": stages}

    def begin(self, model: VLM) -> None:
        pass

    def prepare(self, folder: Path, seed: int) -> None:
        pass

    def batches(self, stage: Stage, processor: VLMProcessor, folder: Path, seed: int) -> Any:
        from vlmkit.training.sources import mixture

        return mixture(stage, processor, self.data, seed=seed, hold_out=self.hold_out)

    def further(self, stage: Stage, model: VLM) -> dict[str, Any]:
        return {}

    def scores(self, model: VLM, processor: VLMProcessor) -> dict[str, float]:
        from vlmkit.training.held_out import kept_back

        found: Mapping[str, float] = kept_back(self.stages[-1], processor, self.data, self.hold_out)(model)
        ending = "/exact" if self.measure == "right" else "/loss"
        return {name.removesuffix(ending): score for name, score in found.items() if name.endswith(ending)}

    def sizes(self) -> list[Size]:
        return [size for _, samples in self._kept() for number in range(len(samples)) for size in samples.image_sizes(number)]

    def _asked(self) -> bool:
        """Whether any source is a question about one image a sample, which can be asked."""
        from vlmkit.training.held_out import as_task

        return any(as_task(name, samples) is not None for name, samples in self._kept())

    def _kept(self) -> list[tuple[str, Any]]:
        from vlmkit.data.shards import Shards
        from vlmkit.training.held_out import Chosen

        return [(source.name, Chosen(Shards(self.data / source.name), self.hold_out)) for source in self.stages[-1].data]
