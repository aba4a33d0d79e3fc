"""One candidate with one seed and one budget. A warm-up is a trial too, whose result is the weights of a tower and of a language model.

Stopped, a trial goes on where it was.
"""

from __future__ import annotations

import itertools
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.comparing.world import World
from vlmkit.files import write_whole

if TYPE_CHECKING:
    from vlmkit.model import VLM
    from vlmkit.training.stage import Stage

RESULT, WEIGHTS = "result.json", "warm.safetensors"
WARMED = ("encoder.", "language_model.")


@dataclass(frozen=True)
class Trial:
    name: str
    """Of its directory in the study."""
    architecture: Architecture
    seed: int
    world: World
    folder: Path
    """Where the study's pictures lie."""
    warm: str = ""
    """The trial in which its tower and language model learned before; empty for none."""
    warms: bool = False
    """Whether it is such a trial itself."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those that it goes through."""
        return self.world.warm_up if self.warms else self.world.stages


def run(trial: Trial, study: Path, threads: int, digest: str, told: Callable[[str], None] = print) -> dict[str, Any]:
    """Train and ask, from wherever the trial stands; what was measured, which stands in its result.json too, beside the digest of what
    it follows from.

    Raises vlmkit.training.loop.Interrupted, with its state saved.
    """
    import torch

    import vlmkit
    from vlmkit.screen import Screen
    from vlmkit.training.blueprint import OfArchitecture
    from vlmkit.training.engines import engine
    from vlmkit.training.loop import Trainer
    from vlmkit.training.metrics_log import read_metrics
    from vlmkit.training.processes import meet
    from vlmkit.training.run import RunDirectory

    torch.set_num_threads(threads)
    run, world = RunDirectory(study / trial.name), trial.world
    run.begin({"architecture": trial.architecture.to_dict(), "seed": trial.seed, "stages": [stage.to_dict() for stage in trial.stages]})
    try:
        folder = trial.folder
        if not trial.warms:
            world.prepare(folder, trial.seed)
        processor = vlmkit.build_processor(trial.architecture)

        def begin(model: VLM) -> None:
            world.begin(model)
            if trial.warm:
                take_warmed(model, study / trial.warm / WEIGHTS)

        trainer = Trainer(
            run,
            OfArchitecture(trial.architecture, seed=trial.seed, changed=begin),
            engine=engine("single", meet()),
            seed=trial.seed,
            console=Screen(quiet=True),
            workers=0,
        )
        for stage in trial.stages:
            if stage.name not in trainer.done:
                told(f"{stage.name}, {stage.steps} steps")
                trainer.train(stage, world.batches(stage, processor, folder, trial.seed), **world.further(stage, trainer.model))
        model = trainer.model.eval()
        if trainer.log is not None:
            trainer.log.close()
        found: dict[str, Any] = {"of": digest, "seconds": round(trainer.seconds, 2)}
        if trial.warms:
            save_warmed(model, run.path / WEIGHTS)
        else:
            told("held-out questions")
            found["step_seconds"] = _step_seconds([record for record in read_metrics(run.path) if record["stage"] == trial.stages[-1].name])
            begun = time.perf_counter()
            found["scores"] = world.scores(model, processor)
            found["asking_seconds"] = round(time.perf_counter() - begun, 2)
            found["bytes"] = _peak(model.device)
        write_whole(run.path / RESULT, json.dumps(found, indent=2) + "\n")
        return found
    finally:
        run.unlock()


def save_warmed(model: VLM, file: Path) -> None:
    from safetensors.torch import save_file

    from vlmkit.files import commit, partial, writing

    weights = {name: value.clone().contiguous() for name, value in model.state_dict().items() if name.startswith(WARMED)}
    with writing(file):
        save_file(weights, partial(file))
        commit(partial(file), file)


def take_warmed(model: VLM, file: Path) -> None:
    """The tower and the language model of another model into this one. Raises RuntimeError where they are not the same."""
    from safetensors.torch import load_file

    weights = load_file(file)
    own = {name for name in model.state_dict() if name.startswith(WARMED)}
    if own != weights.keys():
        differing = ", ".join(sorted(own ^ weights.keys())[:4])
        raise RuntimeError(f"{file} holds other weights than this model's tower and language model have: {differing}")
    model.load_state_dict(weights, strict=False)


def _step_seconds(records: list[dict[str, Any]]) -> float:
    """Median time of a step; of a single one its own."""
    seconds: list[float] = [record["seconds"] for record in records]
    return round(statistics.median([after - before for before, after in itertools.pairwise(seconds)] or seconds), 4)


def _peak(device: Any) -> int:
    """Bytes: what CUDA's allocator held at its most, or what this process did."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
