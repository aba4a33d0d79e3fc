from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlmkit.training.run import RunDirectory, RunError


def test_another_configuration_is_refused_with_both_values(tmp_path):
    RunDirectory(tmp_path / "run").begin({"seed": 0, "recipe": {"stages": [{"name": "align", "steps": 3}]}})
    with pytest.raises(RunError) as refused:
        RunDirectory(tmp_path / "run").check({"seed": 1, "recipe": {"stages": [{"name": "align", "steps": 4}]}})
    assert "seed: the run has 0, asked for 1" in str(refused.value)
    assert "recipe.stages[align].steps: the run has 3, asked for 4" in str(refused.value)
    assert "--fresh" in str(refused.value)


def test_fresh_removes_a_run_and_nothing_else(tmp_path):
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"")
    with pytest.raises(RunError, match="holds no run"):
        RunDirectory(other).clear()
    with pytest.raises(RunError, match="holds no run"):
        RunDirectory(other).check({})
    assert (other / "cat.jpg").exists()
    run = RunDirectory(tmp_path / "run")
    run.begin({"seed": 0})
    run.unlock()
    RunDirectory(tmp_path / "run").clear()
    assert not (tmp_path / "run").exists()


def test_two_processes_cannot_train_in_one_directory(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.begin({})
    with pytest.raises(RunError, match="another process"):
        RunDirectory(tmp_path / "run").begin({})
    run.unlock()
    RunDirectory(tmp_path / "run").begin({})


def test_leftovers_of_a_crash_are_removed(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.begin({})
    run.unlock()
    (tmp_path / "run" / "data.json.partial").write_text("half")
    (tmp_path / "run" / "checkpoint.partial").mkdir()
    RunDirectory(tmp_path / "run").begin({})
    assert not list((tmp_path / "run").glob("*.partial"))


def test_describing_a_run_loads_no_torch():
    code = "import sys; import vlmkit.training.run, vlmkit.training.stage; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_a_worker_that_outlives_its_process_does_not_keep_the_directory(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.begin({})
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    worker = context.Process(target=lambda: (begun.set(), time.sleep(60)))
    worker.start()
    assert begun.wait(30)
    run.unlock()
    again = RunDirectory(tmp_path / "run")
    again.lock()
    again.unlock()
    worker.kill()
    worker.join()
