"""A disk that is full from any call on: every command that writes says so in one sentence with the path, leaves nothing half-written, and
goes on to the same result once there is room."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vlmkit
from tests.data.packs import sample
from tests.evaluation.small_data import gqa
from tests.test_damaged_directories import of_parser
from tests.training.conftest import small
from vlmkit.checkpoints import export
from vlmkit.cli import build_parser, main
from vlmkit.data.shards import ShardWriter

STAGES = "stages:\n- {name: all, steps: 2, batch_size: 1, connector: 1.0e-2, data: [{name: a}]}\n"
WRITES = {
    "show": "show photo.png --model univa-vl-tiny -o OUT/out.png",
    "tokens": "tokens photo.png --model univa* --sheet OUT/out.png",
    "data show": "data show shards/a -o OUT/out.png",
    "data stats": "data stats shards/a -o OUT/out.png",
    "data pack": "data pack shards/a OUT/packed --format webdataset --workers 0",
    "export": "export published OUT/exported",
    "consolidate": "consolidate run OUT/consolidated",
    "eval": "eval own --task gqa --data gqa --out OUT/eval --limit 1 --no-blind --max-new-tokens 1",
    "compare": "compare small.json --connector mlp:depth=1 mlp:depth=2 --out OUT/study --stages stages.yaml --data shards --hold-out 2",
    "train": "train small.json --stages stages.yaml --data shards --run OUT/run --workers 0 --threads 1 --save-seconds 0",
}
CHANGES = re.compile(r"tfevents|\.lock$|metrics\.jsonl$|/state/|run\.json$|tensorboard")
"""Files whose bytes hold times, or that are between two states."""


class Disk:
    """Full from the n-th call on that makes, opens for writing or renames something below a directory."""

    below = ""
    room = 0
    calls = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.below or event not in ("open", "os.mkdir", "os.rename"):
            return
        path = arguments[1] if event == "os.rename" else arguments[0]
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if isinstance(path, str | Path) and os.path.abspath(path).startswith(self.below):
            self.calls += 1
            if self.calls > self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


DISK = Disk()
sys.addaudithook(DISK)  # there is no taking it away: it looks at nothing unless it is told where


@contextmanager
def full_after(calls: int, below: Path) -> Iterator[None]:
    DISK.below, DISK.room, DISK.calls = str(below), calls, 0
    try:
        yield
    finally:
        DISK.below = ""


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing fails within a file, also where it is not Python that writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What commands read."""
    place = tmp_path_factory.mktemp("desk")
    model, processor = vlmkit.build(small(), seed=0), vlmkit.build_processor(small())
    model.save_pretrained(place / "own")
    processor.save_pretrained(place / "own")
    export(vlmkit.build("llava-1.5-tiny", seed=0), vlmkit.build_processor("llava-1.5-tiny"), place / "published")
    with ShardWriter(place / "shards" / "a") as writer:
        for number in range(4):
            assert writer.write(sample(number, "a"))
    gqa(place / "gqa", lambda *_: "yes")
    Image.new("RGB", (80, 60)).save(place / "photo.png")
    (place / "small.json").write_text(small().to_json())
    (place / "stages.yaml").write_text(STAGES)
    return place


@pytest.fixture
def here(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in desk.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vlmkit.comparing.study.Study.run", lambda *_: None)
    if not (desk / "run").exists():
        assert main(WRITES["train"].replace("OUT/run", "run").split()) == 0
        shutil.move("run", desk / "run")
        (tmp_path / "run").symlink_to(desk / "run")
    return tmp_path


def contents(directory: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(directory)): None if path.is_dir() or CHANGES.search(str(path)) else path.read_bytes()
        for path in directory.rglob("*")
        if not CHANGES.search(str(path.relative_to(directory)))
    }


def ran(line: str) -> int:
    try:
        return main(line.split())
    except SystemExit as leaving:
        return int(leaving.code or 0)


def law(line: str, out: Path, capsys: pytest.CaptureFixture[str], failing: Any) -> bool:
    """Whether the command fails on the failing disk, as the law says. Then it is run again where there is room."""
    out.mkdir()
    capsys.readouterr()
    with failing:
        code = ran(line)
        for thread in threading.enumerate():
            if not thread.daemon and thread is not threading.current_thread():
                thread.join()  # as at the end of a process
    said = capsys.readouterr().err
    if code != 0:
        assert code == 1, said
        assert len([line for line in said.splitlines() if line]) == 1, said
        assert str(out) in said or "OUT" in said, said
        assert re.search(r"No space left|too large", said), said
        assert not re.search(r"\b\w*(Error|Exception)\b", said), said
        left = [path for path in out.rglob("*") if path.name.endswith((".partial", str(os.getpid()))) and "packed" not in str(path)]
        assert not left, (left, said)
        assert ran(line) == 0, capsys.readouterr().err
    return code != 0


def test_every_command_that_writes_is_walked() -> None:
    commands = {command for command, _ in of_parser(build_parser())} - {"data"}
    assert commands == WRITES.keys() | {"list", "plan", "data mix", "chat", "serve"}


@pytest.mark.parametrize("command", WRITES)
def test_a_disk_that_is_full_from_any_call_on(command: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, calls = here / "OUT", 0
    out.mkdir()
    assert ran(WRITES[command]) == 0, capsys.readouterr().err
    straight = contents(out)
    shutil.rmtree(out)
    while law(WRITES[command], out, capsys, full_after(calls, out)):
        assert contents(out) == straight
        shutil.rmtree(out)
        calls += 1
    assert calls >= 2


@pytest.mark.parametrize("command", WRITES)
def test_a_disk_that_is_full_within_a_file(command: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, failed = here / "OUT", 0
    for size in (0, 1000):
        failed += law(WRITES[command], out, capsys, files_of_at_most(size))
        shutil.rmtree(out)
    assert failed


def test_a_model_that_does_not_fit_on_the_disk_is_a_sentence(tmp_path: Path) -> None:
    """And so is its processor."""
    model, processor = vlmkit.build(small(), seed=0), vlmkit.build_processor(small())
    for each in (model, processor):
        for size in (0, 1000):
            with files_of_at_most(size), pytest.raises(OSError, match="too large") as error:
                each.save_pretrained(tmp_path / "saved")
            assert str(tmp_path / "saved") in str(error.value)
        each.save_pretrained(tmp_path / "saved")
    vlmkit.load(tmp_path / "saved")
