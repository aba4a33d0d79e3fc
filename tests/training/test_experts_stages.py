"""MoE-LLaVA's stages: a plain model learns, then its FFNs become experts, which learn alone and share the tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import vlmkit
from vlmkit.experts import Experts
from vlmkit.experts_module import spread
from vlmkit.spec import SpecError
from vlmkit.training.blueprint import OfArchitecture, OfModule
from vlmkit.training.changed import with_experts
from vlmkit.training.consolidate import consolidate
from vlmkit.training.engines import engine
from vlmkit.training.loop import Interrupted, Trainer
from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.processes import Processes
from vlmkit.training.run import RunDirectory
from vlmkit.training.signals import StopSignals
from vlmkit.training.stage import Source, Stage
from vlmkit.training.stage_files import read_stages
from vlmkit.training.states import SavedState

FILE = Path(__file__).parents[2] / "recipes" / "moe_llava" / "stages.yaml"
COLOURS = {"red": (220, 30, 30), "green": (30, 190, 40), "blue": (40, 60, 230), "white": (250, 250, 250)}


def plain() -> vlmkit.Architecture:
    """moe-llava-tiny before its third stage."""
    tiny = vlmkit.architecture("moe-llava-tiny")
    return tiny.replace(language_model=tiny.language_model.replace(experts=None))


class Colours(Dataset[dict[str, Tensor]]):
    """Eight patches of a colour, with the question what colour it is, or how many letters its name has."""

    def __init__(self, rows: int = 8) -> None:
        self.processor, self.rows = vlmkit.build_processor(plain()), rows

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng(number)
        conversations = []
        for _ in range(self.rows):
            name = list(COLOURS)[rng.integers(len(COLOURS))]
            picture = np.clip(rng.normal(COLOURS[name], 20, (28, 28, 3)), 0, 255).astype(np.uint8)
            question, answer = ("What colour?", name) if rng.random() < 0.5 else ("How many letters?", str(len(name)))
            content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
            conversations.append([{"role": "user", "content": content}, {"role": "assistant", "content": answer}])
        return dict(self.processor(conversations))


def small_stages(*steps: int) -> tuple[Stage, ...]:
    """The stages of the file in so many steps, at rates at which something so small moves."""
    stages = read_stages(FILE)
    changed = []
    for stage, length in zip(stages, steps, strict=True):
        rates = dict.fromkeys(stage.learn, 0.01) | {
            field: 1e-2 for field in ("connector", "language_model") if getattr(stage, field) is not None
        }
        short = {"learn": {path: rate for path, rate in rates.items() if "." in path}}
        short |= {path: rate for path, rate in rates.items() if "." not in path}
        plain_fields = {"steps": length, "warmup": min(2, length), "batch_size": 8, "accumulate": 1, "recompute": False}
        changed.append(stage.replace(**plain_fields, **short, data=(Source(name="any"),)))
    return tuple(changed)


def train(directory: Path, stages: tuple[Stage, ...], kind: str = "single", stop: StopSignals | None = None, at: int = 0) -> Trainer:
    run = RunDirectory(directory)
    run.begin({})
    trainer = Trainer(run, OfArchitecture(plain(), seed=0), engine=engine(kind, Processes()), save_seconds=1e9, workers=0, stop=stop)

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        if stop is not None and trainer.updates == at:
            stop.number = 15
        found: Tensor = model(**batch).loss
        return found

    try:
        for stage in stages:
            trainer.train(stage, Colours(), loss=loss)
    finally:
        run.unlock()
        if trainer.log is not None:
            trainer.log.close()
    return trainer


def test_three_stages_end_with_a_router_that_spreads_tokens(tmp_path: Path) -> None:
    """Two CPU cores train it in some forty seconds. No expert of a layer gets less than half of an equal share, of what was trained on or
    of what was not."""
    stages = small_stages(40, 120, 120)
    train(tmp_path / "run", stages)
    records = list(read_metrics(tmp_path / "run"))
    losses = {stage.name: [record["loss"] for record in records if record["stage"] == stage.name] for stage in stages}
    assert {name: len(of) for name, of in losses.items()} == {"align": 40, "tune": 120, "experts": 120}
    assert np.mean(losses["tune"][-10:]) < 0.5 * np.mean(losses["align"][:10])
    consolidate(tmp_path / "run", tmp_path / "checkpoint")
    vlmkit.build_processor(plain()).save_pretrained(tmp_path / "checkpoint")
    model, processor = vlmkit.load(tmp_path / "checkpoint")
    assert model.config.spec == vlmkit.architecture("moe-llava-tiny")
    told = {name: value for name, value in records[-1].items() if name.startswith("experts/")}
    assert sorted(told) == [f"experts/{layer}/{number}" for layer in (0, 2) for number in range(4)]
    assert min(told.values()) > 0.125, told
    shares = spread(model, Colours(64)[10_000])
    assert min(min(row) for row in shares.values()) > 0.125, shares
    assert not any(name.startswith("experts/") for name in records[60]), "a plain model has none"
    right = 0
    for name, colour in COLOURS.items():
        picture = np.full((28, 28, 3), colour, np.uint8)
        right += model.chat(processor, picture, "What colour?", max_new_tokens=8) == name
    assert right == len(COLOURS)


def test_the_third_stage_begins_where_the_second_ended_and_moves_experts_alone(tmp_path: Path) -> None:
    stages = small_stages(1, 2, 2)
    train(tmp_path / "plain", stages[:2])
    train(tmp_path / "all", stages)
    before, after = (SavedState.newest(tmp_path / name / "state") for name in ("plain", "all"))
    assert before is not None
    assert after is not None
    loss = list(read_metrics(tmp_path / "all"))[3]["loss"]
    consolidate(tmp_path / "plain", tmp_path / "dense")
    vlmkit.build_processor(plain()).save_pretrained(tmp_path / "dense")
    model, _ = vlmkit.load(tmp_path / "dense")
    batch = Colours()[0]
    assert loss == pytest.approx(float(model(**batch).loss), abs=0.05), "the loss of the plain model, and what a router adds"
    kept = [name for name in after.names("weight") if name in before.names("weight")]
    learnt = sorted(after.names("weight") - set(kept))
    assert all(torch.equal(values(before, name), values(after, name)) for name in kept)
    inner = ("gate.weight", *(f"experts.{part}.{kind}" for part in ("fc1", "fc2") for kind in ("weight", "bias")))
    assert learnt == sorted(f"language_model.model.layers.{layer}.mlp.{name}" for layer in (0, 2) for name in inner)


def values(state: SavedState, name: str) -> Tensor:
    shape = state.shape("weight", name)
    return state.read("weight", name, 0, int(np.prod(shape))).view(shape)


@pytest.mark.parametrize("kind", ["single", "fsdp2"])
def test_what_was_stopped_among_experts_goes_on_to_the_same_weights(tmp_path: Path, kind: str) -> None:
    stages = small_stages(1, 1, 3)
    train(tmp_path / "whole", stages, kind)
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", stages, kind, StopSignals(), at=3)
    train(tmp_path / "stopped", stages, kind)
    one, other = (SavedState.newest(tmp_path / name / "state") for name in ("whole", "stopped"))
    assert one is not None
    assert other is not None
    assert one.position["model"]["architecture"]["language_model"]["experts"] == Experts(capacity=1.5).to_dict()
    for name in one.names("weight"):
        assert torch.equal(values(one, name), values(other, name)), name


def test_the_router_follows_from_the_seed_and_the_experts_from_the_weights() -> None:
    built = vlmkit.build(plain(), seed=0)
    mixed = with_experts(plain(), Experts(capacity=1.5))
    assert mixed == vlmkit.architecture("moe-llava-tiny")
    one, same, other = (OfModule(built).at(mixed, seed).whole() for seed in (0, 0, 1))
    gate = "language_model.model.layers.2.mlp.gate.weight"
    assert torch.equal(one.state_dict()[gate], same.state_dict()[gate])
    assert not torch.equal(one.state_dict()[gate], other.state_dict()[gate])
    copies = one.state_dict()["language_model.model.layers.2.mlp.experts.fc2.weight"]
    assert all(torch.equal(copy, built.language_model.model.layers[2].mlp.fc2.weight) for copy in copies)
    with pytest.raises(SpecError, match="has experts already"):
        with_experts(mixed, Experts(count=8))


def test_the_file_has_the_papers_numbers() -> None:
    align, tune, experts = read_stages(FILE)
    assert (align.paths, tune.paths) == ({"connector": 1e-3}, {"connector": 2e-5, "language_model": 2e-5})
    assert experts.paths == {"language_model.experts": 2e-5, "language_model.router": 2e-5}
    assert experts.experts == vlmkit.architecture("moe-llava-stablelm-1.6b-4e").language_model.experts
    assert [stage.batch_size * stage.accumulate * 8 for stage in (align, tune, experts)] == [256, 128, 128]
