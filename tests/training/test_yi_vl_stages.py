"""Yi-VL's stages: tower and projector at 224 pixels, again at 448, then all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

import vlmkit
from vlmkit.preprocess import Size
from vlmkit.resolution import at_resolution
from vlmkit.training.blueprint import OfArchitecture
from vlmkit.training.consolidate import consolidate
from vlmkit.training.engines import engine
from vlmkit.training.loop import Trainer
from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.processes import Processes
from vlmkit.training.run import RunDirectory
from vlmkit.training.stage_files import read_stages
from vlmkit.training.states import SavedState

FILE = Path(__file__).parents[2] / "recipes" / "yi_vl" / "stages.yaml"
PROCESSES = 16


class Pictures(Dataset[dict[str, Tensor]]):
    def __init__(self, architecture: vlmkit.Architecture) -> None:
        self.processor = vlmkit.build_processor(architecture)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        picture = np.random.default_rng(number).integers(0, 255, (60, 40, 3), dtype=np.uint8)
        content = [{"type": "image", "image": picture}, {"type": "text", "text": "What?"}]
        return dict(self.processor([[{"role": "user", "content": content}, {"role": "assistant", "content": "Noise."}]]))


def test_the_file_says_what_was_published() -> None:
    stages = read_stages(FILE)
    assert [stage.batch_size * stage.accumulate * PROCESSES for stage in stages] == [4096, 4096, 256]
    assert [stage.steps * stage.batch_size * stage.accumulate * PROCESSES // 10**6 for stage in stages] == [99, 25, 1]
    assert [(stage.image_size, stage.clip, stage.language_model) for stage in stages] == [
        (224, 0.5, None),
        (448, 0.5, None),
        (None, 1.0, 2e-5),
    ]
    named = vlmkit.architecture("yi-vl-6b")
    assert [at_resolution(named, size).tokens(Size(480, 640)) for size in (224, 448)] == [256, 1024]
    assert at_resolution(named, 448) == named


def test_tower_and_projector_learn_at_both_sizes_before_the_language_model_does(tmp_path: Path) -> None:
    tiny = vlmkit.architecture("yi-vl-tiny")
    small = {"steps": 2, "warmup": 0, "batch_size": 1, "accumulate": 1, "recompute": False, "schedule": "constant"}
    sizes = {224: 28, 448: 56, None: None}
    stages = [stage.replace(**small, image_size=sizes[stage.image_size]) for stage in read_stages(FILE)]
    run = RunDirectory(tmp_path / "run")
    run.begin({})
    trainer = Trainer(run, OfArchitecture(tiny, seed=0), engine=engine("single", Processes()), save_seconds=1e9, workers=0)
    moved, before = [], vlmkit.build(tiny, seed=0).state_dict()
    for stage in stages:
        trainer.train(stage, Pictures(at_resolution(tiny, stage.image_size or 56)))
        state = SavedState.newest(tmp_path / "run" / "state")
        assert state is not None
        assert state.position["model"]["architecture"]["encoder"]["image_size"] == (stage.image_size or 56)
        after = {
            name: state.read("weight", name, 0, value.numel()).view(value.shape) for name, value in before.items() if "position" not in name
        }
        moved.append({name.partition(".")[0] for name, value in after.items() if not torch.equal(value, before[name])})
        before |= after
    if trainer.log is not None:
        trainer.log.close()
    run.unlock()
    assert moved == [{"encoder", "connector"}, {"encoder", "connector"}, {"encoder", "connector", "language_model"}]
    assert [record["stage"] for record in read_metrics(tmp_path / "run")] == ["low", "low", "high", "high", "all", "all"]
    consolidate(tmp_path / "run", tmp_path / "checkpoint")
    vlmkit.build_processor(tiny).save_pretrained(tmp_path / "checkpoint")
    assert vlmkit.load(tmp_path / "checkpoint")[0].config.spec == tiny
