"""JSON lines, TensorBoard, and the trackers: these as they are published, wandb offline and trackio into a directory."""

from __future__ import annotations

import json
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from vlmkit.training.metrics_log import MetricsLog, read_metrics
from vlmkit.training.run import RunError
from vlmkit.training.trackers import ASKED_BY, TrackerError

WANTED = "pip install wandb trackio"


@pytest.fixture(autouse=True)
def _nothing_is_asked_for(monkeypatch) -> None:
    for variable in [variable for variables in ASKED_BY.values() for variable in variables]:
        monkeypatch.delenv(variable, raising=False)


def record(step: int) -> dict[str, Any]:
    return {"stage": "align", "step": step, "loss": 1.0 / step, "tokens": 100 * step, "tokens_per_second": 50.0}


def scalars(directory: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard")).Reload()
    return {name: {event.step: event.value for event in events.Scalars(name)} for name in events.Tags()["scalars"]}


def test_records_are_lines_and_their_floating_numbers_curves(tmp_path):
    log = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write(step, record(step))
    log.scores(3, {"vqa/exact": 0.5})
    log.close()
    assert list(read_metrics(tmp_path)) == [record(step) for step in (1, 2, 3)]
    curves = scalars(tmp_path)
    assert curves.keys() == {"train/loss", "train/tokens_per_second", "vqa/exact"}
    assert curves["train/loss"] == pytest.approx({1: 1.0, 2: 0.5, 3: 1 / 3})
    assert curves["vqa/exact"] == {3: 0.5}
    assert not (tmp_path / "trackers.json").exists()


def test_a_continued_log_reads_as_if_nothing_had_happened(tmp_path):
    log = MetricsLog(tmp_path)
    log.write(1, record(1))
    saved = log.flush()
    log.write(2, {**record(2), "loss": 9.0})
    log.close()
    log = MetricsLog(tmp_path, keep=saved, step=1)
    log.write(2, record(2))
    log.close()
    assert list(read_metrics(tmp_path)) == [record(1), record(2)]
    assert scalars(tmp_path)["train/loss"] == {1: 1.0, 2: 0.5}


def test_a_log_that_is_missing_or_cut_is_said_and_the_run_goes_on(tmp_path):
    log = MetricsLog(tmp_path)
    for step in (1, 2):
        log.write(step, record(step))
    saved = log.flush()
    log.close()
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(UserWarning, match=r"metrics\.jsonl has .* of the .* bytes that it had when the state was saved; the run goes on"):
        log = MetricsLog(tmp_path, keep=saved, step=2)
    log.write(3, record(3))
    log.close()
    assert list(read_metrics(tmp_path)) == [record(1), record(3)]
    path.unlink()
    with pytest.raises(RunError, match=r"metrics\.jsonl is missing"):
        list(read_metrics(tmp_path))
    with pytest.warns(UserWarning, match=r"metrics\.jsonl is missing; the run goes on, and the records before are lost"):
        log = MetricsLog(tmp_path, keep=saved, step=2)
    log.close()
    path.write_text("no record\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 1 is no record"):
        list(read_metrics(tmp_path))


def test_a_tracker_that_is_unknown_is_refused(tmp_path):
    with pytest.raises(TrackerError, match="unknown tracker 'wandbb'; expected one of wandb, trackio"):
        MetricsLog(tmp_path, trackers=("wandbb",))


@pytest.mark.parametrize("name", ASKED_BY)
def test_a_tracker_that_is_not_installed_is_refused_by_name_and_warned_of_by_the_environment(name, tmp_path):
    """In a process whose imports find nothing beside the standard library and what the log needs."""
    code = f"""
import os, sys, warnings
from pathlib import Path
import importlib.util
from vlmkit.training import metrics_log, trackers
found = importlib.util.find_spec
sys.meta_path.insert(0, type("Hide", (), {{"find_spec": staticmethod(lambda *a: None)}}))
if found({name!r}) is not None:
    sys.exit(77)
try:
    metrics_log.MetricsLog(Path(sys.argv[1]), trackers=({name!r},))
except trackers.TrackerError as error:
    print(error)
os.environ[trackers.ASKED_BY[{name!r}][0]] = "mine"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    metrics_log.MetricsLog(Path(sys.argv[1])).close()
print(*(warning.message for warning in caught if "asks for" in str(warning.message)))
"""
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    if ran.returncode == 77:
        pytest.skip(f"{name} is installed here")
    assert ran.returncode == 0, ran.stderr
    refused, warned = ran.stdout.splitlines()
    assert refused == f"{name} was asked for and is not installed: pip install {name}"
    assert warned.startswith(f"{ASKED_BY[name][0]} asks for {name}, which is not installed")


@pytest.mark.skipif(find_spec("wandb") is None, reason=WANTED)
def test_wandb_gets_the_curves_and_a_continued_run_keeps_its_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "meters")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log = MetricsLog(tmp_path, config={"seed": 3})
    identity = log.trackers[0].id
    log.write(1, record(1))
    log.write(2, record(2))
    log.scores(2, {"vqa/exact": 0.5})
    saved = log.flush()
    log.close()
    log = MetricsLog(tmp_path, keep=saved, step=2)
    assert log.trackers[0].id == identity
    log.write(2, {**record(2), "loss": 9.0})  # done again, and not sent again
    log.write(3, record(3))
    log.close()
    kept = json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    assert kept == {"id": identity, "project": "meters", "step": 3}
    runs = sorted((tmp_path / "wandb").glob(f"offline-run-*-{identity}/run-{identity}.wandb"))
    assert len(runs) == 2
    until = time.monotonic() + 20
    sent: list[dict[str, Any]] = []
    while len(sent) < 3 and time.monotonic() < until:  # its own process writes the file, and may do so after `finish`
        time.sleep(0.1)
        sent = [entry for run in runs for entry in wandb_history(run)]
    assert [(entry["_step"], entry.get("train/loss")) for entry in sent if "train/loss" in entry] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert [entry["vqa/exact"] for entry in sent if "vqa/exact" in entry] == [0.5]


def wandb_history(file: Path) -> Iterator[dict[str, Any]]:
    """Records of a file of wandb's: a header of 7 bytes, then blocks of 32 KiB in LevelDB's log format (crc 4, length 2, kind 1)."""
    from wandb.proto import wandb_internal_pb2

    data, place, pending = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        pending += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind not in (1, 4):  # the whole, or the last piece
            continue
        entry = wandb_internal_pb2.Record()
        entry.ParseFromString(pending)
        pending = b""
        if entry.WhichOneof("record_type") == "history":
            values = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in entry.history.item}
            yield values | {"_step": entry.history.step.num}


@pytest.mark.skipif(find_spec("trackio") is None, reason=WANTED)
def test_trackio_gets_the_curves_and_a_continued_run_keeps_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_PROJECT", "meters")
    code = """
import sys
sys.path[:] = eval(sys.argv[2])
from pathlib import Path
from tests.training.test_metrics_log import record
from vlmkit.training.metrics_log import MetricsLog
run = Path(sys.argv[1])
log = MetricsLog(run, config={"seed": 3})
log.write(1, record(1)); log.write(2, record(2))
saved = log.flush()
log.close()
log = MetricsLog(run, keep=saved, step=2)
log.write(2, record(2)); log.write(3, record(3))
log.scores(3, {"vqa/exact": 0.5})
log.close()
"""
    # In a process of its own: trackio settles where it writes when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    run = tmp_path / "run"
    run.mkdir()
    ran = subprocess.run([sys.executable, "-c", code, str(run), repr(sys.path)], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    identity = json.loads((run / "trackers.json").read_text())["trackio"]["id"]
    with sqlite3.connect(next((tmp_path / "trackio").glob("meters*.db"))) as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step, id").fetchall()
    assert {name for name, _, _ in rows} == {f"run-{identity}"}
    losses = [(step, json.loads(metrics)["train/loss"]) for _, step, metrics in rows if "train/loss" in json.loads(metrics)]
    assert losses == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert any(json.loads(metrics).get("vqa/exact") == 0.5 for _, _, metrics in rows)
