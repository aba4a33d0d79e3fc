"""What a stage rules beside its rates: updates that are no numbers, moving averages, evaluations, and the precision of the computation."""

from __future__ import annotations

import io
import itertools
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

import vlmkit
from tests.data.packs import sample
from tests.training.conftest import DATA, Numbered, Setup, small
from vlmkit.data.shards import ShardWriter
from vlmkit.preprocess.policies.smart_resize import SmartResize
from vlmkit.training.consolidate import consolidate
from vlmkit.training.engines import engine
from vlmkit.training.loop import Trainer
from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.processes import Processes
from vlmkit.training.run import RunDirectory
from vlmkit.training.sources import mixture
from vlmkit.training.stage import Source, Stage
from vlmkit.training.states import SavedState, StateWeights
from vlmkit.training.update import model_loss
from vlmkit.weight_source import values_of

POCKET = small().replace(policy=SmartResize(min_pixels=4 * 784, max_pixels=8 * 784))
FEW: dict[str, Any] = {"connector": 1e-2, "language_model": 1e-3, "data": DATA}


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def test_an_update_that_is_no_number_is_skipped_with_the_names_of_its_samples(tmp_path):
    with ShardWriter(tmp_path / "data" / "a") as writer:
        for number in range(12):
            assert writer.write(sample(number))
    said = io.StringIO()
    run = RunDirectory(tmp_path / "run")
    run.begin({"test": 1})
    model = vlmkit.build(POCKET, seed=0)
    trainer = Trainer(run, model, console=Console(file=said, width=10_000), save_seconds=0.0, workers=0)
    stage = Stage(name="all", steps=4, batch_size=2, pack=True, max_length=128, nonfinite="skip", **(FEW | {"data": (Source(name="a"),)}))
    batches = mixture(stage, vlmkit.build_processor(POCKET), tmp_path / "data", seed=0)
    seen: list[dict[str, Tensor]] = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        seen.append(snapshot(model))
        value = model_loss(model, batch)
        # A loss that is none in step 1, and a finite one whose gradient is none in step 2.
        return value * math.nan if len(seen) == 2 else value + (value - value).sqrt() if len(seen) == 3 else value

    trainer.train(stage, batches, loss=loss)
    records = list(read_metrics(run.path))
    assert [record.get("skipped", False) for record in records] == [False, True, True, False]
    seen.append(snapshot(model))
    moved = [any(not torch.equal(value, after[name]) for name, value in before.items()) for before, after in itertools.pairwise(seen)]
    assert moved == [True, False, False, True]
    assert all(value.isfinite().all() for value in seen[-1].values())
    told = [line for line in said.getvalue().splitlines() if "the update is skipped" in line]
    assert len(told) == 2
    assert told[0].startswith("stage all, step 1: the loss is nan; the update is skipped; samples of its last micro-batch: a:img/")
    assert "but its gradient's norm is nan; the update is skipped; samples of its last micro-batch: a:img/" in told[1]
    named = [set(line.partition("micro-batch: ")[2].split(", ")) for line in told]
    assert named[0] != named[1]
    assert all(name in {f"a:img/{number}.x" for number in range(12)} for names in named for name in names)


def test_a_skipped_update_leaves_no_trace_in_the_optimizer(tmp_path):
    """Steps of Adam are counted, and its moments kept: the steps beside it are those of a run without it."""

    class Without(torch.utils.data.Dataset[dict[str, Tensor]]):
        def __init__(self, left_out: int | None) -> None:
            self.batches, self.left_out = Numbered(vlmkit.build_processor(small())), left_out

        def __getitem__(self, number: int) -> dict[str, Tensor]:
            return self.batches[number + (self.left_out is not None and number >= self.left_out)]

    weights = []
    for name, left_out, steps in (("skipped", None, 4), ("without", 1, 3)):
        setup = Setup(tmp_path / name)
        calls = 0

        def loss(model: nn.Module, batch: Any, spoilt: bool = left_out is None) -> Tensor:
            nonlocal calls
            calls += 1
            return model_loss(model, batch) * (math.nan if spoilt and calls == 2 else 1.0)

        stage = Stage(name="all", steps=steps, batch_size=2, schedule="constant", nonfinite="skip", **FEW)
        setup.trainer.train(stage, Without(left_out), loss=loss)
        weights.append(setup.weights())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_an_evaluation_on_the_way_is_logged_and_changes_nothing(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stage = Stage(name="all", steps=5, batch_size=2, **FEW)
    plain = Setup(tmp_path / "plain")

    def noisy(model: nn.Module, batch: Any) -> Tensor:
        return model_loss(model, batch) * (1 + torch.rand(()) / 10 + random.random() / 10 + np.random.rand() / 10)

    plain.trainer.train(stage, plain.batches, loss=noisy)
    assert plain.trainer.log is not None
    plain.trainer.log.close()
    setup = Setup(tmp_path / "run")
    modes: list[bool] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        torch.rand(1), np.random.rand(), random.random()
        modes.append(any(module.training for module in model.modules()) or torch.is_grad_enabled())
        return {"answers/exact": 0.25 * len(modes)}

    during: list[bool] = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        during.append(model.get_submodule("connector").training and not model.get_submodule("encoder").training)
        return noisy(model, batch)

    setup.trainer.train(stage, setup.batches, loss=loss, evaluate=evaluate, evaluate_every=2)
    assert modes == [False, False, False]  # after steps 2 and 4, and at the end
    assert during == [True] * 5
    assert all(torch.equal(value, setup.weights()[name]) for name, value in plain.weights().items())
    assert setup.trainer.log is not None
    setup.trainer.log.close()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("answers/exact")] == [(2, 0.25), (4, 0.5), (5, 0.75)]
    one, other = (list(read_metrics(tmp_path / name)) for name in ("plain", "run"))
    assert [record.get("score/answers/exact") for record in other] == [None, 0.25, None, 0.5, 0.75]
    # Its losses have random numbers in them, so they say that those go on as if nobody had looked.
    assert [(record["loss"], record["norm"]) for record in one] == [(record["loss"], record["norm"]) for record in other]


def test_a_moving_average_is_its_sum(tmp_path):
    """On one process, by hand from the weights behind every step: measured 6e-8, allowed 1e-6."""
    decay = 0.8
    setup = Setup(tmp_path / "run")
    before: list[dict[str, Tensor]] = []

    def loss(model: nn.Module, batch: Any) -> Tensor:
        before.append(snapshot(model))
        return model_loss(model, batch)

    setup.trainer.train(Stage(name="all", steps=5, batch_size=2, ema=decay, **FEW), setup.batches, loss=loss)
    first, *behind = [*before, setup.weights()]
    assert len(behind) == 5
    state = SavedState.newest(setup.run.state)
    assert state is not None
    names = state.names("average")
    assert {name.split(".")[0] for name in names} == {"connector", "language_model"}
    consolidate(setup.run.path, tmp_path / "averaged", averaged=True)
    vlmkit.build_processor(small()).save_pretrained(tmp_path / "averaged")
    written = vlmkit.load(tmp_path / "averaged")[0].state_dict()
    far = 0.0
    for name in names:
        wanted = first[name].double()
        for weights in behind:
            wanted = decay * wanted + (1 - decay) * weights[name].double()
        found = values_of(StateWeights(state, averaged=True), name)
        assert torch.equal(found, written[name])
        far = max(far, float((found - wanted).abs().max()))
        assert not torch.equal(found, behind[-1][name])
    assert far < 1e-6


def trained(
    path: Path, dtype: str, stage: Stage, before: Callable[[nn.Module], None] = lambda model: None
) -> tuple[nn.Module, list[float]]:
    torch.manual_seed(0)
    run = RunDirectory(path)
    run.begin({"test": 1})
    model = vlmkit.build(small(), seed=0)
    before(model)
    trainer = Trainer(run, model, engine=engine("single", Processes(), dtype=dtype), save_seconds=1e9, workers=0)
    trainer.train(stage, Numbered(vlmkit.build_processor(small())))
    return model, [record["loss"] for record in read_metrics(path)]


def test_bfloat16_follows_the_losses_of_float32(tmp_path):
    """Over 200 steps, in which they fall from 5.5 to 1.0. Each step, relative: measured 0.35 %, allowed 1 %."""
    stage = Stage(name="all", steps=200, batch_size=2, encoder=1e-3, warmup=10, **(FEW | {"connector": 1e-3, "language_model": 1e-3}))
    exact, rounded = (torch.tensor(trained(tmp_path / dtype, dtype, stage)[1]) for dtype in ("float32", "bfloat16"))
    assert exact[-20:].mean() < 0.5 * exact[:20].mean()
    assert not torch.equal(exact, rounded)
    assert float((rounded / exact - 1).abs().max()) < 0.01


def test_as_many_weights_move_as_in_float32(tmp_path):
    """At rates that bfloat16 weights would round away, masters in float32 move: 97.6 % of matrices, each within 0.03 % of float32."""
    stage = Stage(name="all", steps=10, batch_size=2, schedule="constant", encoder=1e-6, connector=1e-5, language_model=1e-5, data=DATA)
    shares = []
    for kind in ("float32", "bfloat16"):
        start: dict[str, Tensor] = {}
        model, _ = trained(tmp_path / kind, kind, stage, lambda model, start=start: start.update(snapshot(model)))
        moved = [(value != start[name]).float().mean().item() for name, value in model.named_parameters() if value.dim() > 1]
        assert all(value.dtype == torch.float32 for value in model.parameters())
        shares.append(torch.tensor(moved))
    assert shares[0].mean() > 0.9
    assert (shares[0] - shares[1]).abs().max() < 0.01
