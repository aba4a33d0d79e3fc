"""The five tasks over small data in the published layouts: the same answers and scores in batches of any size, on two processes, and after
a process was killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vlmkit
from tests.evaluation.small_data import IMAGES, MAKERS, QUESTIONS, write, write_model
from vlmkit.cli import main
from vlmkit.evaluation import report
from vlmkit.evaluation.benchmarks import read_task
from vlmkit.evaluation.benchmarks.gathered import SHORT
from vlmkit.evaluation.metrics import cider_d, word_f1
from vlmkit.evaluation.tasks import Task, TaskResult, evaluate

ROOT = Path(__file__).parents[2]
ASKED = {"coco_captions": IMAGES, "synthtext": IMAGES} | {name: IMAGES * len(QUESTIONS) for name in ("docvqa", "gqa", "textvqa")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(model: Path) -> tuple[Any, Any]:
    return vlmkit.load(model)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, loaded: tuple[Any, Any]) -> Path:
    """Half of the answers are what the model says, one question at a time; so no score is 0 or 1."""
    folder = write(tmp_path_factory.mktemp("data"))
    said = {name: [answer.sighted for answer in answered(loaded, folder, name, 1).answers] for name in MAKERS}

    def answers(name: str, image: int, question: int) -> str:
        ways = ASKED[name] // IMAGES
        order = [(n, k) for n in range(IMAGES) for k in range(ways)]
        words = said[name][order.index((image, question))]
        return words if words and (image + question) % 2 == 0 else "cd dc b"

    return write(folder, answers)


def answered(loaded: tuple[Any, Any], data: Path, name: str, batch_size: int, **options: Any) -> TaskResult:
    return evaluate(*loaded, read_task(name, data / name), batch_size=batch_size, **options)


@pytest.fixture(scope="module")
def alone(loaded: tuple[Any, Any], data: Path) -> dict[str, TaskResult]:
    return {name: answered(loaded, data, name, 1) for name in MAKERS}


def test_a_question_is_asked_with_its_tasks_words_and_answered_as_the_model_answers(alone, loaded):
    model, processor = loaded
    for name, result in alone.items():
        assert len(result.answers) == ASKED[name]
        assert result.task.prompt == (SHORT if len(result.answers) > IMAGES else "{question}")
        for answer in result.answers[:3]:
            question = result.task.prompt.replace("{question}", answer.question.question)
            images, length = result.task.images, result.task.max_new_tokens
            assert answer.sighted == model.chat(processor, images[answer.question.image], question, max_new_tokens=length)
            assert answer.blind == model.chat(processor, images[answer.swapped], question, max_new_tokens=length)
    assert len({answer.sighted for result in alone.values() for answer in result.answers}) > 15


def test_scores_are_those_of_the_metrics(alone):
    leading = {name: next(iter(result.values().values())) for name, result in alone.items()}
    assert all(score > 0 for score in leading.values()), leading
    assert all(result.values() != result.values(blind=True) for result in alone.values())
    captions = alone["coco_captions"]
    said = [answer.sighted.split() for answer in captions.answers]
    right = [[one.lower().rstrip(".").split() for one in answer.question.answers] for answer in captions.answers]
    assert captions.values()["cider_d"] == pytest.approx(float(np.mean(cider_d(said, right))))
    words = [word_f1(answer.sighted, answer.question.answer) for answer in alone["synthtext"].answers]
    assert alone["synthtext"].values()["word_f1"] == pytest.approx(float(np.mean(words)))
    assert alone["synthtext"].each == tuple(words)
    for result in alone.values():
        for score in (*result.sighted.values(), *(result.blind or {}).values()):
            assert score.low is not None
            assert score.high is not None
            assert score.low <= score.value <= score.high


@pytest.mark.parametrize("batch_size", [2, 16])
def test_answers_and_scores_do_not_depend_on_the_batch(alone, loaded, data, batch_size):
    for name, result in alone.items():
        other = answered(loaded, data, name, batch_size)
        assert other.answers == result.answers
        assert (other.sighted, other.blind, other.each) == (result.sighted, result.blind, result.each)


def test_without_blind_questions_the_sighted_answers_stay(alone, loaded, data):
    other = answered(loaded, data, "textvqa", 16, blind=False)
    assert [answer.sighted for answer in other.answers] == [answer.sighted for answer in alone["textvqa"].answers]
    assert (other.sighted, other.blind) == (alone["textvqa"].sighted, None)


# Processes.


@contextlib.contextmanager
def started(count: int, *argv: str) -> Iterator[list[subprocess.Popen[str]]]:
    """`vlmkit eval` in so many processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"GLOO_SOCKET_IFNAME": "lo"}
    children = []
    try:
        for rank in range(count):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)} if count > 1 else {}
            command = [sys.executable, "-m", "vlmkit", "eval", *argv]
            children.append(
                subprocess.Popen(command, env=os.environ | shared | place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def finished(children: list[subprocess.Popen[str]]) -> list[str]:
    told = [child.communicate(timeout=240) for child in children]
    assert [child.returncode for child in children] == [0] * len(children), told
    return [out for out, _ in told]


def same_as(alone: dict[str, TaskResult], out: Path) -> None:
    for name, result in alone.items():
        rows = [json.loads(line) for line in (out / name / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
        assert rows == json.loads(json.dumps(report.predictions(result)))
        assert json.loads((out / name / "scores.json").read_text()) == json.loads(json.dumps(report.as_json(result)))


def kept(out: Path) -> list[tuple[str, int, bool]]:
    """Every answer that was written while the evaluation ran."""
    found = []
    for path in sorted(out.glob("*/answers.*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found += [(path.parent.name, row["question"], row["blind"]) for row in rows]
    return found


def test_two_processes_give_what_one_gives(alone, model, data, tmp_path):
    argv = (str(model), "--task", *MAKERS, "--data", str(data), "--out", str(tmp_path), "--batch-size", "4", "--device", "cpu")
    with started(2, *argv) as children:
        first, second = finished(children)
    same_as(alone, tmp_path)
    assert not second
    assert all(name in first for name in MAKERS)
    files = list((tmp_path / "gqa").glob("answers.*.jsonl"))
    assert len(files) == 2
    assert all(file.stat().st_size for file in files)


def test_an_evaluation_that_was_killed_goes_on(alone, model, data, tmp_path):
    """Once with one process, then with two; an answer that was kept is not asked for again."""
    argv = (str(model), "--task", *MAKERS, "--data", str(data), "--out", str(tmp_path), "--device", "cpu")
    with started(1, *argv, "--batch-size", "1") as (child,):
        until = time.monotonic() + 240
        while len(kept_so_far := list(tmp_path.glob("*/answers.0.jsonl"))) < 2 and child.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert kept_so_far
    assert not (tmp_path / "synthtext" / "predictions.jsonl").exists()
    torn = sorted(kept_so_far)[0]
    with torn.open("ab") as file:
        file.write(b'{"question": 0, "blind": fal')
    with started(2, *argv, "--batch-size", "16") as children:
        finished(children)
    same_as(alone, tmp_path)
    answers = kept(tmp_path)
    assert len(answers) == len(set(answers)) == 2 * sum(ASKED.values())


# The command in this process.


def run(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 0) -> str:
    assert main(["eval", *map(str, argv)]) == code, capsys.readouterr().err
    printed = capsys.readouterr()
    return printed.out if code == 0 else printed.err


def test_the_command_prints_a_table_and_draws_a_page(capsys, alone, model, data, tmp_path):
    out = run(capsys, model, "--task", "textvqa", "--data", data / "textvqa", "--out", tmp_path)
    (line,) = (line for line in out.splitlines() if line.startswith("textvqa"))
    score = alone["textvqa"].sighted["vqa_accuracy"]
    for number in (score.value, score.low, score.high):
        assert f"{number:.3f}" in line
    page = (tmp_path / "textvqa" / "page.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 2 * IMAGES
    assert page.count("data:image/") == 4 * IMAGES
    assert "Best by vqa_accuracy" in page
    # The same again asks nothing, and another evaluation there is refused.
    assert run(capsys, model, "--task", "textvqa", "--data", data, "--out", tmp_path) == out
    error = run(capsys, model, "--task", "textvqa", "--data", data, "--out", tmp_path, "--limit", 3, code=1)
    assert "holds answers of another evaluation (its questions differs)" in error
    run(capsys, model, "--task", "textvqa", "--data", data, "--out", tmp_path, "--limit", 3, "--fresh", "--no-blind", "--as-asked")
    rows = [json.loads(line) for line in (tmp_path / "textvqa" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({row["image"] for row in rows}) == len(rows) == 3
    assert "blind" not in rows[0]


def test_wrong_arguments_are_one_sentence(capsys, model, data, tmp_path):
    def wrong(*argv: object, code: int = 2) -> str:
        (first, *_) = run(capsys, *argv, "--out", tmp_path, code=code).splitlines()
        return first

    assert "unknown task 'textvqq'; did you mean 'textvqa'?" in wrong(model, "--task", "textvqq", "--data", data)
    assert "there is no folder" in wrong(model, "--task", "gqa", "docvqa", "--data", data / "gqa")
    assert "task 'synthtext' takes no split; it takes partial" in wrong(model, "--task", "synthtext", "--data", data, "--split", "val")
    assert "has one image" in wrong(model, "--task", "gqa", "--data", data, "--limit", 1)
    assert "there is no directory" in wrong("nowhere", "--task", "gqa", "--data", data, code=1)
    assert "has no TextVQA_*_train.json" in wrong(model, "--task", "textvqa", "--data", data, "--split", "train", code=1)


# Tasks.


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_missing_is_an_error_unless_a_part_is_wanted(name, tmp_path):
    folder = write(tmp_path) / name
    images = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    images[0].unlink()
    with pytest.raises(vlmkit.DataError, match=rf"task '{name}': \d of its questions or images cannot be used, the first because"):
        read_task(name, folder)
    task = read_task(name, folder, partial=True)
    assert (len(task.images), len(task.questions)) == (IMAGES - 1, ASKED[name] - ASKED[name] // IMAGES)


def test_all_answers_that_people_gave_are_kept(data):
    textvqa, docvqa, coco = (read_task(name, data / name) for name in ("textvqa", "docvqa", "coco_captions"))
    assert {len(question.answers) for question in textvqa.questions} == {10}
    assert {question.answers[0] for question in docvqa.questions} == {"other"}
    assert {question.answers[0] for question in coco.questions} == {"A man on a bike."}
    assert textvqa.questions[4].id == "11"


def test_a_limit_takes_the_first_question_about_every_image_first(data):
    task = read_task("gqa", data / "gqa", limit=7)
    assert sorted(question.image for question in task.questions) == [0, 0, 1, 1, 2, 3, 4]
    assert read_task("gqa", data / "gqa", limit=100) == read_task("gqa", data / "gqa")
    few = read_task("gqa", data / "gqa", limit=2)
    assert [image.name for image in few.images] == ["n0.jpg", "n1.jpg"]


STRANGER = '''
from pathlib import Path

import vlmkit
from vlmkit.evaluation.scoring import mean_of
from vlmkit.evaluation.tasks import Question, Task


@vlmkit.tasks.register("signs")
def signs(folder: Path, *, language: str = "en") -> Task:
    """Signs of our town."""
    questions = tuple(Question(number, "What does it say?", "stop") for number in range(2))
    images = tuple(sorted(folder.glob("*.png")))
    return Task("signs", images, questions, metrics=(mean_of("letters", lambda answer, right: len(answer)),))
'''


def test_a_strangers_task_is_one_function(capsys, monkeypatch, model, tmp_path):
    monkeypatch.setattr(vlmkit.tasks, "_parts", dict(vlmkit.tasks._parts))
    plugin = tmp_path / "signs.py"
    plugin.write_text(STRANGER)
    from tests.evaluation.small_data import photo

    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(photo(number))
    out = run(capsys, model, "--task", "signs", "--data", tmp_path, "--out", tmp_path / "out", "--plugin", plugin)
    rows = [json.loads(line) for line in (tmp_path / "out" / "signs" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert f"{np.mean([len(row['said']) for row in rows]):.3f}" in out
    assert main(["list", "--tasks", "--plugin", str(plugin)]) == 0
    listed = capsys.readouterr().out
    assert "Signs of our town." in listed
    assert all(name in listed for name in MAKERS)
    with pytest.raises(ValueError, match="task 'signs' takes no split; it takes language"):
        read_task("signs", tmp_path, split="val")


def test_a_task_without_questions_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(vlmkit.tasks, "_parts", dict(vlmkit.tasks._parts))
    vlmkit.tasks.register("nothing")(lambda folder: Task("nothing", (), ()))
    with pytest.raises(vlmkit.DataError, match="task 'nothing' found no question in"):
        read_task("nothing", tmp_path)
    with pytest.raises(vlmkit.DataError, match="is no folder"):
        read_task("nothing", tmp_path / "nowhere")
