"""Shards in stores: the same samples as from a folder, from several hosts, and every failure a sentence with the address."""

from __future__ import annotations

import multiprocessing
import operator
import os
import pickle
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from math import lcm
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.data.mixed import processor, run, same
from tests.data.mixed import sample as mixed_sample
from tests.data.packs import sample
from vlmkit.cli import main
from vlmkit.data.mixture import DataSource, Mixture
from vlmkit.data.sample import DataError
from vlmkit.data.shards import Shards, ShardWriter, stores
from vlmkit.data.shards.index import INDEX, ROWS, has_index
from vlmkit.data.shards.places import Address, place
from vlmkit.data.shards.stores import StoreError
from vlmkit.training.sources import mixture
from vlmkit.training.stage import Source, Stage

SAMPLES = [sample(number, "ab"[number % 2]) for number in range(7)]
COUNT = 24
"""Samples of the mixtures."""


class Failing(MemoryFileSystem):
    """The memory store behind a network that fails as it is told."""

    protocol = "failing"
    failures: list[Exception] = []  # noqa: RUF012 (shared on purpose)
    reads = 0
    cachable = False

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        type(self).reads += 1
        if self.failures:
            raise self.failures.pop(0)
        data: bytes = super().cat_file(path, start=start, end=end, **options)
        return data

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("failing://", "memory://"))


class Rangeless(Failing):
    protocol = "rangeless"

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        return super().cat_file(path)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("rangeless://", "memory://"))


@pytest.fixture(autouse=True)
def _stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fsspec.register_implementation("failing", Failing, clobber=True)
    fsspec.register_implementation("rangeless", Rangeless, clobber=True)
    monkeypatch.setenv(stores.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(stores, "PAUSE", 0.001)
    Failing.failures, Failing.reads = [], 0
    yield
    fsspec.filesystem("memory").store.clear()


def packed(directory: Path, samples: list[Any] = SAMPLES, **options: Any) -> Path:
    with ShardWriter(directory, **options) as writer:
        for one in samples:
            assert writer.write(one)
    return directory


def uploaded(directory: Path) -> str:
    fsspec.filesystem("memory").put(f"{directory}/", "/bucket/coco/", recursive=True)
    return "memory://bucket/coco"


@pytest.mark.parametrize("form", ["memory://bucket/coco", "memory://bucket/coco/", "file", "simplecache", "zip"])
def test_shards_are_the_same_wherever_they_lie(tmp_path: Path, form: str) -> None:
    folder = packed(tmp_path / "co co", shard_bytes=3000)
    uploaded(folder)
    if form == "zip":
        shutil.make_archive(str(tmp_path / "coco"), "zip", tmp_path, folder.name)
    address = {
        "file": f"file://{folder}",
        "simplecache": "simplecache::memory://bucket/coco",
        "zip": f"zip://co co::file://{tmp_path}/coco.zip",
    }.get(form, form)
    here, there = Shards(folder), Shards(address)
    assert there.directory.name == ("co co" if form in ("file", "zip") else "coco")
    assert list(there) == list(here) == SAMPLES
    assert there.summary == here.summary
    assert len(there.summary.shards) > 1
    for number in range(len(here)):
        assert there.image_sizes(number) == here.image_sizes(number)
        assert there.images(number) == here.images(number)
        assert there.without_images(number) == here.without_images(number)
    assert pickle.loads(pickle.dumps(there))[3] == SAMPLES[3]


def test_a_sample_is_one_read_of_its_bytes_alone(tmp_path: Path) -> None:
    uploaded(packed(tmp_path / "coco"))
    shards = Shards("failing://bucket/coco")
    opened = Failing.reads
    assert [shards[number] for number in (5, 2, 6)] == [SAMPLES[number] for number in (5, 2, 6)]
    assert Failing.reads == opened + 3


def test_tables_are_copied_to_this_host_once_and_anew_when_they_change(tmp_path: Path) -> None:
    uploaded(packed(tmp_path / "coco"))
    assert list(Shards("memory://bucket/coco")) == list(Shards("memory://bucket/coco")) == SAMPLES
    copies = sorted((tmp_path / "cache" / "tables").glob("*.npy"))
    assert len(copies) == 2
    uploaded(packed(tmp_path / "other", SAMPLES[::-1]))
    assert list(Shards("memory://bucket/coco")) == SAMPLES[::-1]
    assert len(sorted((tmp_path / "cache" / "tables").glob("*"))) == 8, "two tables and two locks each"


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_read_what_this_one_opened_and_read(tmp_path: Path, start: str) -> None:
    folder = packed(tmp_path / "coco")
    shards = Shards(f"simplecache::file://{folder}")
    assert shards[0] == SAMPLES[0]
    with ProcessPoolExecutor(1, multiprocessing.get_context(start)) as processes:
        assert list(processes.map(operator.getitem, [shards] * 3, [3, 0, 5])) == [SAMPLES[3], SAMPLES[0], SAMPLES[5]]


class Slow(Failing):
    """A store that is being opened by a thread of that name for as long as it is told."""

    protocol = "slow"
    cachable = True
    opening, opened = threading.Event(), threading.Event()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if threading.current_thread().name == "slow":
            self.opening.set()
            assert self.opened.wait(60)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("slow://", "memory://"))


def test_a_worker_that_is_forked_while_a_thread_opens_a_store_does_not_wait_for_it(tmp_path: Path) -> None:
    fsspec.register_implementation("slow", Slow, clobber=True)
    uploaded(packed(tmp_path / "coco"))
    shards = Shards("slow://bucket/coco")
    Slow.clear_instance_cache()
    thread = threading.Thread(target=shards.__getitem__, args=(0,), name="slow")
    thread.start()
    worker = multiprocessing.get_context("fork").Process(target=_compare, args=(shards, 2))
    try:
        assert Slow.opening.wait(60)
        worker.start()
        worker.join(30)
        assert worker.exitcode == 0
    finally:
        Slow.opened.set()
        thread.join()
        worker.kill()


def _compare(shards: Shards, number: int) -> None:
    assert shards[number] == SAMPLES[number]


def test_what_fails_in_passing_is_tried_again_and_what_fails_for_good_is_a_sentence(tmp_path: Path) -> None:
    uploaded(packed(tmp_path / "coco"))
    Failing.failures = [OSError("reset by peer")]
    shards = Shards("failing://bucket/coco")
    Failing.failures = [TimeoutError(), ConnectionResetError("reset"), RuntimeError("503 slow down")]
    assert shards[2] == SAMPLES[2]
    Failing.failures = [OSError("no route")] * stores.ATTEMPTS
    with pytest.raises(StoreError, match=r"failing://bucket/coco/shard-000000\.tar cannot be read \(OSError: no route\), tried 5 time"):
        shards[2]
    Failing.failures, Failing.reads = [PermissionError("Forbidden")], 0
    with pytest.raises(StoreError, match=r"cannot be read \(PermissionError: Forbidden\), tried 1 time"):
        shards[2]
    assert (shards[2], Failing.reads) == (SAMPLES[2], 2)


def test_a_shard_that_is_missing_cut_short_or_changed_is_named(tmp_path: Path) -> None:
    uploaded(packed(tmp_path / "coco"))
    store = fsspec.filesystem("memory")
    shards = Shards("memory://bucket/coco")
    data = store.cat_file("/bucket/coco/shard-000000.tar")
    at = int(shards.tables.rows["offset"][6])
    store.pipe_file("/bucket/coco/shard-000000.tar", data[: at + 700])
    with pytest.raises(DataError, match=rf"memory://bucket/coco/shard-000000\.tar ends at byte {at + 700}, \d+ bytes early"):
        shards[6]
    store.pipe_file("/bucket/coco/shard-000000.tar", data[:-9000] + bytes(9000))
    with pytest.raises(DataError, match=r"memory://bucket/coco/shard-000000\.tar, sample 6: the bytes are not those that were written"):
        shards[6]
    store.rm("/bucket/coco/shard-000000.tar")
    with pytest.raises(DataError, match=r"memory://bucket/coco/shard-000000\.tar is not there") as found:
        shards[0]
    assert not isinstance(found.value, OSError), "a sample that is not there is rejected; it does not stop a run"


def test_a_store_that_reads_no_ranges_is_refused(tmp_path: Path) -> None:
    uploaded(packed(tmp_path / "coco"))
    with pytest.raises(DataError, match=r"asked for \d+ bytes, the store sent \d+: it reads no ranges; .*'simplecache::rangeless://bucket"):
        Shards("rangeless://bucket/coco")[0]


def test_what_is_no_address_of_shards_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'memory://bucket/none' is no directory that 'vlmkit data pack' wrote"):
        Shards("memory://bucket/none")
    uploaded(packed(tmp_path / "coco"))
    fsspec.filesystem("memory").rm(f"/bucket/coco/{ROWS}")
    with pytest.raises(DataError, match=rf"memory://bucket/coco/{ROWS} is not there"):
        Shards("memory://bucket/coco")
    with pytest.raises(DataError, match=r"gopher://x/index\.json is no address that fsspec reads: Protocol not known: gopher"):
        Shards("gopher://x")
    with pytest.raises(DataError, match="'simplecache::x' is no address: expected one with ://"):
        Shards("simplecache::x")
    assert (has_index(place("memory://bucket/coco")), has_index(place("memory://bucket"))) == (True, False)


@pytest.mark.parametrize(
    ("address", "module", "pip"),
    [("s3://b/x", "s3fs", "vlmkit[remote]"), ("gs://b/x", "gcsfs", "vlmkit[remote]"), ("abfs://b/x", "adlfs", "adlfs")],
)
def test_a_package_that_is_missing_is_named_with_the_command(address: str, module: str, pip: str) -> None:
    if module in {package.name for package in __import__("pkgutil").iter_modules()}:
        pytest.skip(f"{module} is installed")
    with pytest.raises(DataError) as found:
        Shards(address)
    assert str(found.value) == f'{address}/{INDEX} needs the package {module}: pip install "{pip}"'


def test_addresses_grow_as_paths_do_and_folders_stay_folders() -> None:
    assert str(Address("s3://b") / "x" / INDEX) == f"s3://b/x/{INDEX}"
    assert str(Address("zip://::s3://b/x.zip") / "coco" / INDEX) == f"zip://coco/{INDEX}::s3://b/x.zip"
    assert str(Address("simplecache::s3://b/x") / INDEX) == f"simplecache::s3://b/x/{INDEX}"
    assert str(place("hf://datasets/a/b@main/")) == "hf://datasets/a/b@main"
    for text, folder in (("a/b", "a/b"), ("file:///a/b", "/a/b"), ("local://a", "a"), ("a:b", "a:b"), (Path("c"), "c")):
        assert place(text) == Path(folder)


def test_shards_are_written_to_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="shards are written to a folder of this machine, got 's3://bucket/coco'"):
        ShardWriter("s3://bucket/coco")
    assert list(Shards(packed(tmp_path / "coco"))) == SAMPLES
    assert main(["data", "pack", "--format", "chat", str(tmp_path), "s3://bucket/coco"]) == 1
    assert "got 's3://bucket/coco': name one, and copy it" in capsys.readouterr().err
    packed_by_address = ShardWriter(f"file://{tmp_path}/filed")  # type: ignore[arg-type]
    packed_by_address.write(SAMPLES[0])
    packed_by_address.close()
    assert list(Shards(tmp_path / "filed")) == SAMPLES[:1]


def test_commands_take_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    uploaded(packed(tmp_path / "coco"))
    monkeypatch.chdir(tmp_path)
    assert main(["data", "stats", "memory://bucket/coco", "--json"]) == 0
    assert '"samples": 7' in capsys.readouterr().out
    assert main(["data", "show", "memory://bucket/coco", "1", "2"]) == 0
    assert Path("coco.samples.png").is_file()
    assert main(["data", "show", "memory://bucket/none"]) == 1
    assert "'memory://bucket/none' is no directory that" in capsys.readouterr().err
    assert main(["train", "univa-vl-tiny", "--stages", "stages.yaml", "--data", "simplecache::x"]) == 2
    assert "--data: 'simplecache::x' is no address: expected one with ://" in capsys.readouterr().err


def test_a_stage_takes_its_sources_from_an_address_as_from_a_folder(tmp_path: Path) -> None:
    folder = packed(tmp_path / "coco", [mixed_sample("a", number, "one") for number in range(4)])
    uploaded(folder)
    stage = Stage(name="one", data=(Source(name="coco"),), steps=1, batch_size=2, head=1e-3)
    here, there = (mixture(stage, processor(), data, seed=0).batches() for data in (tmp_path, "memory://bucket"))
    assert all(same(next(here), next(there)) for _ in range(3))


# --- several hosts ----------------------------------------------------------------------------------------------------


class Watched:
    """The first samples of shards, by a process that writes down what it reads, whichever process of this test it is."""

    def __init__(self, shards: Shards, count: int, log: Path) -> None:
        self.shards, self.count, self.log = shards, count, log

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        raise AssertionError("words and images are read by themselves")

    def image_sizes(self, number: int) -> Any:
        return self.shards.image_sizes(number)

    def without_images(self, number: int) -> Any:
        self._note("words", number)
        return self.shards.without_images(number)

    def images(self, number: int) -> Any:
        self._note("images", number)
        return self.shards.images(number)

    def _note(self, what: str, number: int) -> None:
        opened = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(opened, f"{what} {number}\n".encode())
        os.close(opened)

    def noted(self, what: str) -> Counter[int]:
        """How often each was read since this was last asked."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return Counter(int(number) for kind, number in map(str.split, lines) if kind == what)


@pytest.fixture
def both(tmp_path: Path) -> dict[str, Shards]:
    folder = packed(tmp_path / "coco", [mixed_sample("a", number, ("one", "two", "turns")[number % 3]) for number in range(COUNT)])
    return {"folder": Shards(folder), "store": Shards(uploaded(folder))}


RUNS = st.fixed_dictionaries(
    {
        "where": st.sampled_from(["folder", "store"]),
        "count": st.integers(1, COUNT),
        "worlds": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "stop": st.floats(0, 1),
        "rows": st.integers(1, 3),
        "window": st.integers(1, 10),
        "pack": st.booleans(),
    }
)


def check_an_epoch(shards: Shards, log: Path, drawn: dict[str, Any], workers: int) -> None:
    """An epoch by so many processes, stopped after some rounds and gone on with by as many others."""
    samples = Watched(shards, drawn["count"], log)
    source = DataSource("a", samples)
    mixture = Mixture([source], processor(), rows=drawn["rows"], length=400, pack=drawn["pack"], window=drawn["window"], epochs=1)
    first, second = drawn["worlds"]
    number = len(run(mixture, None)[0])
    log.unlink()
    each = lcm(first, second)  # the others go on where the batches were shared equally
    rounds = round(drawn["stop"] * number) // each * each // first
    taken, state = run(mixture, rounds, world=first, workers=workers) if rounds else ([], None)
    following, state = run(mixture, None, state, world=second, workers=workers)
    assert state["rejected"]["rejected"] == []
    texts = [text for batch in taken + following for text in processor().batch_decode(batch["input_ids"])]
    asked = Counter(int(piece.split("?")[0]) for text in texts for piece in text.split("a")[1:] if piece[0].isdigit())
    assert asked == Counter(range(drawn["count"]))
    if workers == 0 or not rounds:  # workers read ahead: what they made and nobody took is read again
        assert samples.noted("images") == asked


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=RUNS)
def test_several_processes_read_every_sample_of_an_epoch_once_and_so_after_a_resume(
    both: dict[str, Shards], tmp_path: Path, drawn: dict[str, Any]
) -> None:
    check_an_epoch(both[drawn["where"]], tmp_path / "log", drawn, workers=0)


@settings(max_examples=4, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=RUNS, workers=st.integers(1, 2))
def test_and_so_do_their_worker_processes(both: dict[str, Shards], tmp_path: Path, drawn: dict[str, Any], workers: int) -> None:
    worlds = tuple(min(world, 2) for world in drawn["worlds"])
    check_an_epoch(both[drawn["where"]], tmp_path / "log", drawn | {"worlds": worlds}, workers)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=RUNS)
def test_in_a_run_without_an_end_the_words_too_are_read_by_one_process_alone(
    both: dict[str, Shards], tmp_path: Path, drawn: dict[str, Any]
) -> None:
    (tmp_path / "log").unlink(missing_ok=True)
    samples = Watched(both[drawn["where"]], COUNT, tmp_path / "log")
    window, world = drawn["window"], drawn["worlds"][0]
    mixture = Mixture([DataSource("a", samples)], processor(), rows=1, window=window)
    rounds = COUNT // window // world * window  # of one row a process: the whole windows of an epoch, dealt out equally
    taken, _ = run(mixture, rounds, world=world)
    assert len(taken) == rounds * world
    places = [mixture.order[place].sample for place in range(rounds * world)]
    assert samples.noted("words") == samples.noted("images") == Counter(places)
    assert max(Counter(places).values(), default=1) == 1


def test_a_store_that_fails_stops_a_mixture_and_counts_nothing_as_rejected(tmp_path: Path) -> None:
    uploaded(packed(tmp_path / "coco", [mixed_sample("a", number, "one") for number in range(4)]))
    mixture = Mixture([DataSource("a", Shards("failing://bucket/coco"))], processor(), rows=1, window=2, limit=1.0)
    batches = mixture.batches()
    next(batches)
    Failing.failures = [OSError("no route")] * 100
    with pytest.raises(StoreError, match="no route"):
        next(batches)
    Failing.failures = []
    again = mixture.batches(batches.state())
    assert [int(next(again)["input_ids"].shape[0]) for _ in range(3)] == [1, 1, 1]
    assert again.rejected.total() == 0
