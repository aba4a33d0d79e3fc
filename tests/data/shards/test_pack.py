from __future__ import annotations

import filecmp
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.packs import items, sample
from vlmkit.data.rejections import TooManyRejected
from vlmkit.data.sample import DataError
from vlmkit.data.shards import Shards, notes, writer
from vlmkit.data.shards.executors import image_processes
from vlmkit.data.shards.index import PACKING
from vlmkit.data.shards.pack import cores, pack

COUNT = 60
SETTINGS: dict[str, Any] = {"shard_bytes": 20_000, "limit": 0.5, "workers": 0}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What packing writes that nobody disturbs."""
    directory = tmp_path_factory.mktemp("straight") / "shards"
    pack(items(COUNT), directory, **SETTINGS)
    return directory


def assert_same(one: Path, other: Path) -> None:
    """The same files, byte for byte."""
    names = sorted(path.name for path in one.iterdir())
    assert sorted(path.name for path in other.iterdir()) == names
    assert filecmp.cmpfiles(one, other, names, shallow=False) == (names, [], [])


def test_all_samples_in_order_and_every_loss_counted(straight):
    shards = Shards(straight)
    kept = [number for number in range(COUNT) if number % 11 != 5 and number % 9 != 4]
    assert list(shards) == [sample(number) for number in kept]
    assert len(shards.summary.shards) > 5
    assert shards.rejections.by_reason("a") == {"image cannot be opened": 6, "image is missing": 5}
    assert shards.rejections.share("a") == 11 / COUNT
    assert shards.summary.job == {"whole": True, "shard_bytes": 20_000}


def test_the_number_of_processes_changes_nothing(straight, tmp_path):
    pack(items(COUNT), tmp_path / "shards", **SETTINGS | {"workers": 2})
    assert_same(straight, tmp_path / "shards")


def test_cores_are_counted_where_the_system_does_not_say_which_are_ours(monkeypatch):
    assert 1 <= cores() <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == os.cpu_count()


class Stop(BaseException):
    """As Ctrl-C, wherever it comes."""


@settings(max_examples=60, deadline=None)
@given(stops=st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=4))
def test_stopped_anywhere_and_continued_is_the_same(straight, tmp_path_factory, stops):
    directory = tmp_path_factory.mktemp("stopped") / "shards"

    def until(stop):
        yield from itertools.islice(items(COUNT), stop)
        raise Stop

    for stop in stops:
        with pytest.raises(Stop):
            pack(until(stop), directory, **SETTINGS)
        with pytest.raises(DataError, match="was not packed to its end"):
            Shards(directory)
    pack(items(COUNT), directory, **SETTINGS)
    assert_same(straight, directory)


@pytest.mark.parametrize("name", ["commit", "write_index", "write_whole", "verify"])
@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_fault_between_any_two_steps_of_writing_costs_a_shard_at_most(straight, tmp_path, monkeypatch, name, times):
    module = notes if name == "write_whole" else writer
    calls = itertools.count()
    real = getattr(module, name)

    def faulty(*arguments: Any) -> Any:
        if next(calls) == times:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(module, name, faulty)
    directory = tmp_path / "shards"
    failed = False
    try:
        pack(items(COUNT), directory, **SETTINGS)
    except OSError:
        failed = True
    assert failed or (name == "write_index" and times)
    if failed:
        monkeypatch.setattr(module, name, real)
        pack(items(COUNT), directory, **SETTINGS)
    assert_same(straight, directory)


@pytest.mark.parametrize("name", ["job.json", "000000.json", "000000.rows.npy", "000000.sizes.npy"])
@pytest.mark.parametrize("content", [b"", b"{", b"7", b"null"])
def test_notes_of_a_packing_that_cannot_be_read_are_a_sentence(tmp_path, name, content):
    directory = tmp_path / "shards"
    with pytest.raises(TooManyRejected):
        pack(items(COUNT), directory, **SETTINGS | {"limit": 0.0})
    (directory / PACKING / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} cannot be read .*; remove '.*shards' and pack again"):
        pack(items(COUNT), directory, **SETTINGS)
    assert (directory / "shard-000000.tar").is_file()


def test_what_was_continued_has_as_many_bytes(straight, tmp_path):
    with pytest.raises(TooManyRejected):
        pack(items(COUNT), tmp_path / "shards", **SETTINGS | {"limit": 0.0})
    continued, straight = (pack(items(COUNT), tmp_path / name, **SETTINGS) for name in ("shards", "straight"))
    assert (continued.samples, continued.images, continued.bytes) == (straight.samples, straight.images, straight.bytes)


def test_processes_for_images_are_deaf_to_ctrl_c_from_their_first_moment():
    """It is for the one that writes; they would print tracebacks while they are still being imported."""
    with image_processes(1) as executor:
        assert signal.SIGINT in executor.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()).result()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_finished_shard_is_not_made_again(tmp_path):
    directory = tmp_path / "shards"

    def until(stop):
        yield from itertools.islice(items(COUNT), stop)
        raise Stop

    with pytest.raises(Stop):
        pack(until(50), directory, **SETTINGS)
    done = {path.name: path.stat().st_mtime_ns for path in directory.glob("*.tar")}
    assert len(done) >= 3
    pack(items(COUNT), directory, **SETTINGS)
    assert {name: (directory / name).stat().st_mtime_ns for name in done} == done


def test_other_data_than_at_the_beginning_is_refused(tmp_path):
    def until(stop):
        yield from itertools.islice(items(COUNT), stop)
        raise Stop

    directory = tmp_path / "shards"
    with pytest.raises(Stop):
        pack(until(50), directory, **SETTINGS)
    for other in (itertools.islice(items(COUNT), 1, None), itertools.islice(items(COUNT), 3)):
        with pytest.raises(DataError, match="the data is not what it was when"):
            pack(other, directory, **SETTINGS)
    pack(items(COUNT), directory, **SETTINGS)


def test_too_many_rejected_stops_and_goes_on_with_another_limit(straight, tmp_path):
    directory = tmp_path / "shards"
    with pytest.raises(TooManyRejected, match=r"11 of 60 samples of 'a' cannot be used \(18\.3%, allowed 10\.0%\)"):
        pack(items(COUNT), directory, **SETTINGS | {"limit": 0.1})
    assert (directory / PACKING).is_dir()
    pack(items(COUNT), directory, **SETTINGS)
    assert_same(straight, directory)


PACKING_PROGRAM = """
import signal, sys, time
from tests.data.packs import items
from vlmkit.data.shards.pack import cores, pack

def waiting_at_the_end(count):
    yield from items(count)
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
    pack(waiting_at_the_end(int(sys.argv[2])), sys.argv[1], shard_bytes=20_000, limit=0.5, workers=2)
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_killed_while_processes_run_and_continued_is_the_same(tmp_path, stop):
    """Also that the processes that opened images are gone when the one that wrote is."""
    program, directory, count = tmp_path / "program.py", tmp_path / "shards", 1500
    program.write_text(PACKING_PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    running = subprocess.Popen(
        [sys.executable, str(program), str(directory), str(count)], env=environment, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(list(directory.glob("*.tar"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(running.pid, stop)
    running.communicate(timeout=60)
    assert running.returncode != 0
    assert len(list(directory.glob("*.tar"))) >= 3
    while time.monotonic() < deadline:
        try:
            os.killpg(running.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        pytest.fail("a process outlived the one that began it")
    pack(items(count), directory, **SETTINGS)
    pack(items(count), tmp_path / "straight", **SETTINGS)
    assert_same(tmp_path / "straight", directory)
