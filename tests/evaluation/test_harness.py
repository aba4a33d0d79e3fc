"""vlmkit's models in harnesses of others, in environments of their own: the answers and the score are those of `evaluate`."""

from __future__ import annotations

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
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    (samples,) = (tmp_path / "out").rglob("*_samples_vlmkit_local.jsonl")
    lines = sorted((json.loads(line) for line in samples.read_text().splitlines()), key=lambda line: line["doc_id"])
    assert [line["filtered_resps"][0] for line in lines] == [answer.sighted for answer in result.answers]
    (scores,) = (tmp_path / "out").rglob("*_results.json")
    told = json.loads(scores.read_text())["results"]["vlmkit_local"]
    assert told["exact_match,none"] == pytest.approx(result.values()["vqa_accuracy"], abs=1e-9)
