from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

import vlmkit
from tests.training.conftest import DATA, STAGES, Setup
from vlmkit.training.loop import Interrupted, Trainer
from vlmkit.training.meters import CLOCKED
from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.soundness import DivergedError
from vlmkit.training.stage import Stage
from vlmkit.training.states import complete

STEPS = sum(stage.steps for stage in STAGES)


class Died(BaseException):
    """The process is gone: nothing after this line runs, whatever was saved is saved."""


def assert_same(one: Setup, other: Setup) -> None:
    assert all(torch.equal(value, other.weights()[name]) for name, value in one.weights().items())
    without_time = [
        [{key: value for key, value in record.items() if key not in CLOCKED} for record in read_metrics(setup.run.path)]
        for setup in (one, other)
    ]
    assert without_time[0] == without_time[1]
    assert len(without_time[0]) == STEPS


@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_died_anywhere_goes_on_to_the_same_bits(uninterrupted, tmp_path, seed):
    rng = random.Random(seed)
    every = rng.choice([0.0, 1e-2])
    deaths = 0
    setup = Setup(tmp_path / "run", save_seconds=every)
    countdown = rng.randrange(1, STEPS + 1)

    def maybe_die() -> None:
        nonlocal countdown
        countdown -= 1
        if countdown == 0:
            raise Died

    while True:
        try:
            setup.train(maybe_die)
            break
        except Died:
            deaths += 1
            setup.run.unlock()
            # As if the process were gone: only the directory is left, and another seed in every generator.
            countdown = rng.randrange(1, STEPS + 1) if deaths < 3 else 0
            setup = Setup(tmp_path / "run", save_seconds=every)
            torch.manual_seed(1234)
    assert deaths > 0
    assert_same(uninterrupted, setup)


def test_a_killed_process_goes_on_to_the_same_bits(uninterrupted, tmp_path):
    path = tmp_path / "run"
    child = os.fork()
    if child == 0:
        Setup(path).train(lambda: time.sleep(0.05))
        os._exit(0)
    log = path / "metrics.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 5:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert_same(uninterrupted, Setup(path).train())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_with_the_state_saved(uninterrupted, tmp_path, number):
    steps = 0

    def interrupt() -> None:
        nonlocal steps
        steps += 1
        if steps == 5:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    setup = Setup(tmp_path / "run", save_seconds=1e9)
    with pytest.raises(Interrupted, match="stage align after 2 steps") as stopped:
        setup.train(interrupt)
    assert stopped.value.signal == number
    assert signal.getsignal(number) is before
    setup.run.unlock()
    again = Setup(tmp_path / "run", save_seconds=1e9)
    assert again.trainer.updates == 5
    assert_same(uninterrupted, again.train())


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_a_signal_to_the_whole_process_group_stops_the_run_with_its_state_saved(uninterrupted, tmp_path, signals):
    """Terminals, systemd and batch schedulers send it to the workers too, `timeout` twice to the training process."""
    steps = 0

    def interrupt() -> None:
        nonlocal steps
        steps += 1
        if steps == 5:
            for number in signals:
                os.killpg(0, number)
            time.sleep(0.5)  # a worker that dies is noticed within the step

    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        try:
            Setup(tmp_path / "run", save_seconds=1e9, workers=2).train(interrupt)
        except Interrupted as stop:
            os._exit(128 + stop.signal)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signals[0]
    assert not group_lives(child)
    again = Setup(tmp_path / "run", save_seconds=1e9)
    assert again.trainer.updates == 5
    assert_same(uninterrupted, again.train())


def test_a_worker_that_is_stuck_in_a_batch_does_not_hold_up_the_end(tmp_path, monkeypatch):
    class Stuck(torch.utils.data.Dataset):
        def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
            time.sleep(1000 if number else 0)
            return {"pixel_values": torch.zeros(0)}

    def fail(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        raise Died

    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    setup = Setup(tmp_path / "run", workers=2)
    with pytest.raises(Died):
        setup.trainer.train(STAGES[2], Stuck(), loss=fail)
    for worker in multiprocessing.active_children():
        worker.join(timeout=5)
    assert not multiprocessing.active_children()


def test_workers_end_when_the_training_process_is_killed(tmp_path):
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        Setup(tmp_path / "run", workers=2).train(lambda: time.sleep(0.1))
    while not complete(tmp_path / "run" / "state"):
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 15  # torch's workers look for their parent every 5 seconds
    while group_lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def group_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def test_batches_from_worker_processes_are_the_same(uninterrupted, tmp_path):
    assert_same(uninterrupted, Setup(tmp_path / "run", workers=1).train())


def test_batches_from_worker_processes_that_inherit_nothing_are_the_same(tmp_path):
    """Python 3.14 begins processes afresh, like this one."""
    stage = STAGES[2].replace(steps=2)
    own = Setup(tmp_path / "own").train(stages=(stage,))
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        spawned = Setup(tmp_path / "spawned", workers=1).train(stages=(stage,))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert all(torch.equal(value, spawned.weights()[name]) for name, value in own.weights().items())


def test_frozen_is_frozen(uninterrupted, tmp_path):
    def digest(module: torch.nn.Module) -> str:
        return hashlib.sha256(b"".join(value.numpy().tobytes() for value in module.state_dict().values())).hexdigest()

    setup = Setup(tmp_path / "run")
    parts = {name: digest(getattr(setup.model, name)) for name in ("encoder", "connector", "language_model")}
    setup.train(stages=(STAGES[1],))
    changed = {name for name, value in parts.items() if digest(getattr(setup.model, name)) != value}
    assert changed == {"connector"}
    for name in ("encoder", "language_model"):
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in getattr(setup.model, name).parameters())
        assert not getattr(setup.model, name).training
    assert setup.model.connector.training


def test_accumulated_micro_batches_equal_one_batch(tmp_path):
    """Supervised tokens count the same in whichever micro-batch they are: measured 3e-8, allowed 1e-6."""

    class Halves(torch.utils.data.Dataset):
        def __init__(self, processor: vlmkit.VLMProcessor, accumulate: int) -> None:
            self.processor, self.accumulate = processor, accumulate

        def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
            answers = ["yes", "no, not at all"]
            rows = [[{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}] for answer in answers]
            each = len(rows) // self.accumulate
            return dict(self.processor(rows[(number % self.accumulate) * each :][:each]))

    results = []
    for accumulate in (1, 2):
        setup = Setup(tmp_path / f"run{accumulate}")
        setup.batches = Halves(setup.batches.processor, accumulate)
        stage = Stage(name="all", steps=2, batch_size=2 // accumulate, accumulate=accumulate, language_model=1e-3, data=DATA)
        results.append(setup.train(stages=(stage,)))
    # Adam divides by the gradient's size, so gradients are compared through their norms and losses.
    one, other = (list(read_metrics(setup.run.path)) for setup in results)
    assert len(one) == 2
    for first, second in zip(one, other, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-6)
        assert first["norm"] == pytest.approx(second["norm"], rel=1e-5)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    setup = Setup(tmp_path / "run")
    with pytest.raises(DivergedError, match="stage all, step 0: the loss is nan"):
        setup.trainer.train(STAGES[2], setup.batches, loss=lambda model, batch: model(**batch).loss * float("nan"))


def test_a_gradient_that_is_no_number_moves_no_weight_and_the_run_goes_on_from_its_state(tmp_path):
    """A square root at 0 has a finite value and no gradient."""
    setup = Setup(tmp_path / "run")
    setup.trainer.train(STAGES[0], setup.batches)
    before = {name: value.clone() for name, value in setup.weights().items()}

    def rootless(model, batch):
        value = model(**batch).loss
        return value + (value - value).sqrt() * 0

    with pytest.raises(DivergedError, match=r"stage all, step 0: the loss is [\d.]+, but its gradient's norm is nan"):
        setup.trainer.train(STAGES[2], setup.batches, loss=rootless)
    assert all(torch.equal(value, before[name]) for name, value in setup.weights().items())
    setup.run.unlock()
    again = Setup(tmp_path / "run")
    assert again.trainer.done == [STAGES[0].name]
    assert all(torch.equal(value, before[name]) for name, value in again.weights().items())


def test_the_rate_of_every_part_is_logged(uninterrupted: Setup):
    last = [record for record in read_metrics(uninterrupted.run.path) if record["stage"] == "all"][-1]
    rates = {name: rate for name, rate in last.items() if name.startswith("rate/")}
    assert rates.keys() == {"rate/encoder", "rate/connector", "rate/language_model"}
    assert rates["rate/encoder"] == pytest.approx(rates["rate/connector"] / 10)
    assert last["rate"] == max(rates.values())


def test_of_a_model_with_adapters_these_alone_learn(tmp_path):
    from peft import LoraConfig, get_peft_model

    setup = Setup(tmp_path / "run")
    adapted = get_peft_model(
        setup.trainer.model, LoraConfig(r=2, target_modules=r"language_model\..*q_proj", modules_to_save=["connector"])
    )
    learning = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    before = {name: value.detach().clone() for name, value in adapted.named_parameters()}
    trainer = Trainer(setup.run, adapted, workers=0)
    for stage, parts in ((STAGES[1], ("connector",)), (STAGES[2], ("connector", "lora"))):
        trainer.train(stage.replace(warmup=0), setup.batches)
        moved = {name for name, value in adapted.named_parameters() if not torch.equal(value, before[name])}
        assert moved == {name for name in learning if any(part in name for part in parts)}
    assert len(learning) >= 8


def test_recomputing_changes_memory_and_nothing_else(tmp_path):
    plain = STAGES[2].replace(steps=2)
    weights = [
        Setup(tmp_path / stage).train(stages=(plain.replace(recompute=stage == "recompute"),)).weights() for stage in ("plain", "recompute")
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_tensorboard_events_are_written(uninterrupted: Setup):
    files = list(Path(uninterrupted.run.path, "tensorboard").glob("events.out.tfevents.*"))
    assert files
    assert sum(file.stat().st_size for file in files) > 1000
