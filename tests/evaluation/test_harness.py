"""vlmkit's models in harnesses of others, in environments of their own: the answers and the score are those of `evaluate`."""

from __future__ import annotations

import ast
import base64
import csv
import doctest
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from tests.evaluation.small_data import write, write_model
from vlmkit.evaluation.benchmarks import read_task
from vlmkit.evaluation.harness import answering, vlmevalkit
from vlmkit.evaluation.harness.answering import Answerer
from vlmkit.evaluation.tasks import TaskResult, evaluate

HERE = Path(__file__).parent / "harness"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, model: Path) -> TaskResult:
    """Of TextVQA's small data, half of whose people say what the model says."""
    folder = write(tmp_path_factory.mktemp("data"))
    loaded = vlmkit.load(model)
    said = [answer.sighted for answer in evaluate(*loaded, read_task("textvqa", folder / "textvqa"), blind=False).answers]
    folder = write(folder, lambda name, image, question: said[3 * image + question] or "x" if name == "textvqa" else "x")
    return evaluate(*loaded, read_task("textvqa", folder / "textvqa"), blind=False)


def prompts(result: TaskResult) -> list[str]:
    return [result.task.prompt.replace("{question}", question.question) for question in result.task.questions]


def conversations(result: TaskResult) -> list[Any]:
    images = (str(result.task.images[question.image]) for question in result.task.questions)
    parts = [
        [{"type": "image", "value": image}, {"type": "text", "value": text}] for image, text in zip(images, prompts(result), strict=True)
    ]
    return [vlmevalkit.conversation(message) for message in parts]


def test_a_harness_gets_the_answers_of_evaluate(model, result):
    answer = Answerer(str(model), device="cpu")
    found = answer(conversations(result), {"max_new_tokens": result.task.max_new_tokens, "temperature": 0, "top_p": 0.9, "else": 1})
    assert found == [one.sighted for one in result.answers]
    assert 0 < result.values()["vqa_accuracy"] < 1
    ended = answer(conversations(result), {"max_new_tokens": 16, "until": ["c"]})
    assert ended == [one.partition("c")[0] for one in found]
    assert doctest.testmod(answering).failed == 0


def test_a_harness_that_is_not_there_is_named(monkeypatch):
    for name in ("lmms_eval", "vlmeval"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"part of lmms-eval, which cannot be loaded .*pip install 'vlmkit\[lmms\]'"):
        import vlmkit.evaluation.harness.lmms  # noqa: F401
    with pytest.raises(ImportError, match=r"VLMEvalKit cannot be loaded .*github.com/open-compass/VLMEvalKit"):
        vlmevalkit.add("mine", "nowhere")
    with pytest.raises(SystemExit, match="name each model as NAME=CHECKPOINT before '--', got mine"):
        vlmevalkit.main(["mine", "--", "--data", "x"])


@pytest.mark.lmms
def test_lmms_eval_scores_a_run(model, result, tmp_path):
    """In the environment that harness/environment.sh makes, whose directory VLMKIT_LMMS names."""
    environment = Path(os.environ["VLMKIT_LMMS"])
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    shutil.copy(HERE / "utils.py", tasks)
    asked = zip(result.task.questions, prompts(result), strict=True)
    rows = [
        {
            "question_id": number,
            "prompt": prompt,
            "answer": question.answer,
            "answers": list(question.answers),
            "picture": str(result.task.images[question.image]),
        }
        for number, (question, prompt) in enumerate(asked)
    ]
    (tasks / "questions.json").write_text(json.dumps(rows))
    task = (HERE / "local.yaml").read_text().replace("QUESTIONS", str(tasks / "questions.json"))
    (tasks / "local.yaml").write_text(task)
    command = [str(environment / "bin" / "python"), "-m", "lmms_eval", "--model", "vlmkit", "--tasks", "vlmkit_local"]
    command += ["--model_args", f"pretrained={model},device=cpu", "--include_path", str(tasks), "--batch_size", "4"]
    command += ["--output_path", str(tmp_path / "out"), "--log_samples"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=kept | offline, capture_output=True, text=True, check=False, cwd=tmp_path)
    told = done.stdout[-3000:] + done.stderr[-6000:]
    assert done.returncode == 0, told
    files = list((tmp_path / "out").rglob("*_samples_vlmkit_local.jsonl"))
    assert len(files) == 1, told  # what goes wrong there ends with 0 all the same
    samples = files[0]
    lines = sorted((json.loads(line) for line in samples.read_text().splitlines()), key=lambda line: line["doc_id"])
    assert [line["filtered_resps"] for line in lines] == [answer.sighted for answer in result.answers]
    (scores,) = (tmp_path / "out").rglob("*_results.json")
    scored = json.loads(scores.read_text())["results"]["vlmkit_local"]
    assert scored["exact_match,none"] == pytest.approx(result.values()["vqa_accuracy"], abs=1e-9)


SCORED = """
import sys
import numpy, pandas
from vlmeval.dataset.utils.vqa_eval import process_line
lines = pandas.read_excel(sys.argv[1]).sort_values("index")
lines["prediction"] = lines["prediction"].astype(str)
print(repr([lines["prediction"].tolist(), [float(numpy.mean(process_line(line)["match"])) for _, line in lines.iterrows()]]))
"""
"""VLMEvalKit's own score of TextVQA, of the predictions that it kept."""


@pytest.mark.vlmevalkit
def test_vlmevalkit_asks_a_run(model, result, tmp_path):
    """In the environment that harness/vlmevalkit.sh makes, whose directory VLMKIT_VLMEVALKIT names."""
    environment = Path(os.environ["VLMKIT_VLMEVALKIT"])
    python = str(environment / "bin" / "python")
    images = [result.task.images[question.image] for question in result.task.questions]
    rows = [
        (number, base64.b64encode(image.read_bytes()).decode(), prompt, str(list(question.answers)))
        for number, (image, prompt, question) in enumerate(zip(images, prompts(result), result.task.questions, strict=True))
    ]
    with (tmp_path / "vlmkit_local.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("index", "image", "question", "answer"), *rows])
    command = [python, "-m", "vlmkit.evaluation.harness.vlmevalkit", f"mine={model},max_new_tokens=16", "--"]
    command += ["--data", "vlmkit_local", "--model", "mine", "--mode", "infer", "--work-dir", str(tmp_path / "out")]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    kept |= {"LMUData": str(tmp_path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=kept, capture_output=True, text=True, check=False, cwd=environment / "VLMEvalKit")
    files = sorted((tmp_path / "out").rglob("mine_vlmkit_local.xlsx"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert files, done.stdout[-3000:] + done.stderr[-6000:]
    scored = [python, "-c", SCORED, str(files[0])]
    told = subprocess.run(scored, env=kept, capture_output=True, text=True, check=True, cwd=environment / "VLMEvalKit").stdout
    predictions, scores = ast.literal_eval(told.splitlines()[-1])
    assert predictions == [answer.sighted for answer in result.answers]
    assert scores == pytest.approx(result.each)
