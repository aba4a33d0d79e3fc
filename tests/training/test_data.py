"""Training from a mixture: a run that dies and goes on is the run that did not, whoever prepares its batches."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import vlmkit
from tests.data.mixed import counted, sample
from tests.training.conftest import STAGES, Setup, small
from vlmkit.data.mixture import DataSource, Mixture
from vlmkit.data.rejections import TooManyRejected
from vlmkit.data.sample import Sample
from vlmkit.data.shards.stores import StoreError
from vlmkit.training.loop import Interrupted
from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.states import SavedState, StateError

KINDS = ("one", "several", "none", "truncated", "two", "turns", "endless")
STEPS = sum(stage.steps for stage in STAGES)


def mixture(**options: Any) -> Mixture:
    """Two sources, of which every few samples cannot be used; packed in windows that are over in a few steps."""
    sources = [
        DataSource(name, [sample(name, number, KINDS[number % len(KINDS)]) for number in range(size)], weight)
        for name, size, weight in (("a", 14, 2.0), ("b", 5, 1.0))
    ]
    options = {"rows": 2, "length": 120, "pack": True, "window": 8, "limit": 0.5} | options
    return Mixture(sources, vlmkit.build_processor(small()), **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(tmp_path_factory.mktemp("run") / "run", batches=mixture()).train()


def assert_same(one: Setup, other: Setup) -> None:
    assert all(torch.equal(value, other.weights()[name]) for name, value in one.weights().items())
    losses = [[record["loss"] for record in read_metrics(setup.run.path)] for setup in (one, other)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == STEPS
    states = [json.loads(setup.run.data.read_text()) for setup in (one, other)]
    assert counted(states[0]) == counted(states[1])


class Died(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_died_anywhere_goes_on_to_the_same_bits(whole: Setup, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    deaths, left = 0, rng.randrange(1, STEPS)

    def maybe_die() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Died

    while True:
        setup = Setup(tmp_path / "run", save_seconds=rng.choice([0.0, 1e-2]), workers=0 if deaths else seed % 2, batches=mixture())
        try:
            setup.train(maybe_die)
            break
        except Died:
            setup.run.unlock()
            deaths += 1
            left = rng.randrange(1, STEPS) if deaths < 3 else 0
    assert deaths > 0
    assert_same(whole, setup)


def test_a_killed_process_goes_on_to_the_same_bits(whole: Setup, tmp_path: Path) -> None:
    path = tmp_path / "run"
    child = os.fork()
    if child == 0:
        Setup(path, batches=mixture()).train(lambda: time.sleep(0.05))
        os._exit(0)
    log = path / "metrics.jsonl"
    while not log.exists() or log.read_bytes().count(b"\n") < 5:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert_same(whole, Setup(path, workers=1, batches=mixture()).train())


def test_what_was_left_out_is_in_the_directory_of_the_run(whole: Setup) -> None:
    found = json.loads(whole.run.data.read_text())
    reasons = {(row["source"], row["reason"]) for row in found["rejected"]["rejected"]}
    assert {("a", "image cannot be decoded"), ("a", "longer than a row")} <= reasons
    assert found["batch"] == STAGES[-1].steps
    assert found["mixture"]["sources"]["a"] == {"samples": 14, "weight": 2.0}


def test_updates_of_another_number_of_micro_batches_are_refused(tmp_path: Path) -> None:
    setup = Setup(tmp_path / "run", batches=mixture())

    def stop_at_second() -> None:
        if setup.trainer.updates == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        setup.train(stop_at_second, stages=(STAGES[2],))
    setup.run.unlock()
    assert SavedState.newest(setup.run.state).position["data"]["batch"] == 3
    with pytest.raises(StateError, match="begun with 1 micro-batches an update, now it has 2"):
        Setup(tmp_path / "run", batches=mixture()).train(stages=(STAGES[2].replace(accumulate=2),))


def test_a_run_stops_with_one_sentence_where_too_much_is_bad(tmp_path: Path) -> None:
    setup = Setup(tmp_path / "run", batches=mixture(limit=0.1, window=300))
    with pytest.raises(TooManyRejected, match=r"samples of 'a' cannot be used \(\d+\.\d%, allowed 10\.0%\)"):
        setup.train()


class Lost:
    """Samples whose storage fails when their images are read, in whichever process does it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> Sample:
        return sample("a", number, "one")

    def images(self, number: int) -> Any:
        raise self.error


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreError("s3://bucket/a.tar cannot be read (OSError: no route), tried 5 times"), None),
        (FileNotFoundError(2, "No such file or directory", "a.tar"), "[Errno 2] No such file or directory: 'a.tar'"),
    ],
)
def test_storage_that_fails_in_a_worker_is_a_sentence(tmp_path: Path, workers: int, error: Exception, said: str | None) -> None:
    lost = Mixture([DataSource("a", Lost(error))], vlmkit.build_processor(small()), rows=2, length=120, pack=True, window=8)
    setup = Setup(tmp_path / "run", workers=workers, batches=lost)
    with pytest.raises(type(error)) as raised:
        setup.trainer.train(STAGES[2], lost)
    assert str(raised.value) == (said or str(error))


def test_an_error_of_ours_in_a_worker_keeps_its_lines(tmp_path: Path) -> None:
    lost = Mixture([DataSource("a", Lost(RuntimeError("a bug")))], vlmkit.build_processor(small()), rows=2, length=120, pack=True, window=8)
    setup = Setup(tmp_path / "run", workers=1, batches=lost)
    with pytest.raises(RuntimeError, match=r"(?s)Caught RuntimeError in DataLoader worker.*in images.*a bug"):
        setup.trainer.train(STAGES[2], lost)
