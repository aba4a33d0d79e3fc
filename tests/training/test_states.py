from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vlmkit.training.engines.base import fill, whole_shares
from vlmkit.training.processes import Processes
from vlmkit.training.states import KEPT, Piece, SavedState, Saver, StateError, StateWeights, complete


def save(directory: Path, value: float, number: str | None = None) -> None:
    saver = Saver(directory, Processes())
    weight = torch.full((2, 2), value)
    piece = Piece("weight", "weight", (2, 2), 0, weight.view(-1))
    saver.begin(number or f"{int(value):09}-0", [piece], {"weight": {"step": value}}, {"step": int(value)})
    saver.commit()


def read(directory: Path) -> tuple[dict[str, Any], Tensor]:
    state = SavedState.newest(directory)
    assert state is not None
    return state.position, state.read("weight", "weight", 0, 4)


EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.scandir"}


def killed_at(event: int, directory: Path) -> bool:
    """Whether a process that saves dies: at the given one of the calls that touch files."""
    child = os.fork()
    if child == 0:
        left = event

        def hook(name: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if name in EVENTS and any(str(directory) in str(argument) for argument in arguments):
                left -= 1
                if left < 0:
                    os._exit(9)

        sys.addaudithook(hook)
        save(directory, 9.0)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_process_that_is_killed_at_any_point_of_saving_leaves_a_whole_state(tmp_path):
    event, states = 0, set()
    while True:
        directory = tmp_path / str(event)
        for value in (1.0, 2.0, 3.0):
            save(directory, value)
        died = killed_at(event, directory)
        position, values = read(directory)
        assert values.eq(position["step"]).all()
        states.add(position["step"])
        save(directory, 10.0)
        assert read(directory)[0] == {"step": 10}
        assert len(list(directory.iterdir())) == KEPT
        if not died:
            break
        event += 1
    assert states == {3, 9}
    assert event > 15


def test_every_byte_that_changes_on_disk_is_noticed(tmp_path):
    save(tmp_path / "state", 1.0)
    (path,) = complete(tmp_path / "state")
    rng = random.Random(0)
    flipped = 0
    for file in (path / "position.json", path / "rank-00000.safetensors"):
        whole = file.read_bytes()
        places = range(len(whole)) if len(whole) < 1000 else sorted(rng.sample(range(len(whole)), 300))
        for place in places:
            file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :])
            with pytest.raises(StateError, match=r"remove .*, and the run goes on from the state before"):
                read(tmp_path / "state")
            flipped += 1
        file.write_bytes(whole)
    assert flipped > 600
    assert read(tmp_path / "state")[0] == {"step": 1}


def test_a_missing_file_is_named(tmp_path):
    save(tmp_path, 1.0)
    (path,) = complete(tmp_path)
    (path / "rank-00000.safetensors").unlink()
    with pytest.raises(StateError, match=r"rank-00000\.safetensors is damaged"):
        SavedState(path)


def test_only_the_newest_states_stay(tmp_path):
    for value in range(5):
        save(tmp_path, float(value))
    assert [path.name for path in complete(tmp_path)] == ["000000003-0", "000000004-0"]


def test_a_disk_that_cannot_be_written_is_said_and_the_state_before_stays(tmp_path):
    save(tmp_path, 1.0)
    saver = Saver(tmp_path, Processes())
    saver.begin("000000002-0", [], {}, {"step": 2})
    # Gone under its feet, as with a full disk: no file can be made.
    saver._thread.join()
    shutil.rmtree(tmp_path / "000000002-0")
    saver._error = OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left on device; the run goes on from the state before it"):
        saver.commit()
    assert read(tmp_path)[0] == {"step": 1}


class Together(Processes):
    """Processes that take turns in this one."""

    def wait(self) -> None:
        pass

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def sum(self, values: Sequence[float]) -> list[float]:
        return [value * self.world for value in values]


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 40), cuts=st.lists(st.integers(0, 40), max_size=6), data=st.data())
def test_runs_of_any_processes_are_read_by_any_other(tmp_path_factory, length, cuts, data):
    directory = tmp_path_factory.mktemp("state")
    values = torch.randn(length, generator=torch.Generator().manual_seed(length))
    bounds = [0, *sorted(min(cut, length) for cut in cuts), length]
    runs = list(itertools.pairwise(bounds))
    savers = [Saver(directory, Together(rank, len(runs))) for rank in range(len(runs))]
    for saver, (start, end) in zip(savers, runs, strict=True):
        saver.begin("1", [Piece("weight", "a", (length,), start, values[start:end])], {}, {})
    for saver in reversed(savers):
        if not saver.processes.main:
            saver._thread.join()
    savers[0].commit()
    state = SavedState.newest(directory)
    start = data.draw(st.integers(0, length))
    end = data.draw(st.integers(start, length))
    assert torch.equal(state.read("weight", "a", start, end - start), values[start:end])


def test_values_that_no_file_has_are_named(tmp_path):
    saver = Saver(tmp_path, Processes())
    saver.begin("1", [Piece("weight", "a", (4,), 0, torch.zeros(3))], {}, {})
    saver.commit()
    with pytest.raises(StateError, match=r"of a \(weight\) the values from 3 on are in no file"):
        SavedState.newest(tmp_path).read("weight", "a", 1, 3)


def test_another_model_does_not_fit(tmp_path):
    module = torch.nn.Linear(2, 2)
    saver = Saver(tmp_path, Processes())
    saver.begin("1", [Piece("weight", share.name, share.shape, 0, share.values) for share in whole_shares(module)], {}, {})
    saver.commit()
    weights = StateWeights(SavedState.newest(tmp_path))
    for other, told in (
        (torch.nn.Linear(2, 2, bias=False), "the weights have bias, which the model lacks"),
        (torch.nn.Linear(3, 2), r"weight is \(2, 2\) in the weights, the model has \(2, 3\)"),
        (torch.nn.Sequential(module), r"the weights lack 0\.bias, 0\.weight"),
    ):
        with pytest.raises(StateError, match=told):
            fill(other, whole_shares(other), weights)


def test_another_schema_is_refused(tmp_path):
    save(tmp_path, 1.0)
    (path,) = complete(tmp_path)
    content = json.loads((path / "position.json").read_text())
    content["schema"] = 1
    del content["sha256"]
    from vlmkit.training.states import _digest

    (path / "position.json").write_text(json.dumps(content | {"sha256": _digest(content)}))
    with pytest.raises(StateError, match="has schema 1, this vlmkit reads 2"):
        SavedState(path)


@pytest.fixture
def generators() -> Iterator[None]:
    before = torch.get_rng_state(), random.getstate()
    yield
    torch.set_rng_state(before[0])
    random.setstate(before[1])


def test_generators_come_back(tmp_path, generators):
    torch.manual_seed(1)
    random.seed(1)
    save(tmp_path, 1.0)
    drawn = torch.rand(3), random.random()
    SavedState.newest(tmp_path).restore_random(0)
    assert torch.equal(torch.rand(3), drawn[0])
    assert random.random() == drawn[1]
