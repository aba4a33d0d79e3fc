"""The recipe from its arguments to its report, in small."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vlmkit
from tests.training.conftest import small
from vlmkit.data.shards import Shards, ShardWriter
from vlmkit.drawn import pictures
from vlmkit.preprocess.policies.smart_resize import SmartResize
from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.run import RunDirectory

FOLDER = Path(__file__).parents[2] / "recipes" / "univa"
sys.path.insert(0, str(FOLDER))
arguments, stages, train = (importlib.import_module(name) for name in ("arguments", "stages", "train"))

SMALL = small().replace(name="univa-vl-small", policy=SmartResize(min_pixels=12 * 784, max_pixels=20 * 784))


@pytest.fixture(autouse=True, scope="module")
def _small_has_a_name() -> None:
    vlmkit.register_model(SMALL)


@pytest.fixture(autouse=True)
def _threads_of_others() -> Iterator[None]:
    """A run sets how many it takes, for the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def in_small(recipe: Any, steps: int) -> Any:
    """The same stages with few steps of few samples, on a small model."""
    small = {"steps": steps, "batch_size": 2, "batch_tokens": None}
    shortened = tuple(stage.replace(**small, warmup=min(1, stage.warmup)) for stage in recipe.stages)
    return recipe.replace(model=SMALL.name, stages=shortened, evaluation=4, workers=0, dtype="float32", weights=None, answer_tokens=4)


@pytest.fixture
def tiny(monkeypatch, tmp_path) -> Any:
    recipe = in_small(stages.TINY, steps=1)
    monkeypatch.setitem(stages.RECIPES, "tiny", recipe)
    # Beside other tests, threads of one run wait for cores that are taken: ten times as long.
    monkeypatch.setattr("vlmkit.data.shards.pack.cores", lambda: 1)
    monkeypatch.chdir(tmp_path)
    return recipe


def test_from_nothing_to_a_report_and_a_checkpoint(tiny, tmp_path, capsys):
    assert train.main([]) == 0
    run = tmp_path / "runs" / SMALL.name
    printed = capsys.readouterr().out
    assert "warmup-tower" in printed
    assert "frozen: encoder, language model" in " ".join(printed.split())
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 3 * 4
    # Every step and their mean of loss, norm and speed; a line for each rate, for waiting and, where there are tokens, for padding.
    rates = {"warmup-tower": 2, "warmup-text": 1, "align": 1, "pretrain": 3, "sft": 3}
    assert page.count("<polyline") == sum(2 * 3 + rates[stage.name] + 1 + (stage.name != "warmup-tower") for stage in tiny.stages)
    assert "http" not in page.replace("http-equiv", "")
    scores = json.loads((run / "results.json").read_text())["scores"]
    assert scores.keys() == {"description", "vqa", "ocr"}
    assert [record["stage"] for record in read_metrics(run)] == [stage.name for stage in tiny.stages]
    model, processor = vlmkit.load(run / "checkpoint")
    assert isinstance(model.chat(processor, np.zeros((112, 112, 3), np.uint8), "What does the text say?", max_new_tokens=2), str)

    before = (run / "report.html").stat().st_mtime_ns
    assert train.main([]) == 0
    printed = capsys.readouterr().out
    assert "holds a finished run: description" in printed
    assert "--fresh" in printed
    assert (run / "report.html").stat().st_mtime_ns == before

    assert train.main(["--seed", "1", "--connector", "mlp"]) == 1
    refused = capsys.readouterr().err
    assert "seed: the run has 0, asked for 1" in refused
    assert 'architecture.connector.kind: the run has "conv_patch_merger", asked for "mlp"' in refused


def test_after_each_stage_the_report_has_the_curves_so_far_and_answers_about_its_data(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "finish", lambda *arguments: None)  # as if the run had been stopped behind its last stage
    pages = {}
    shown = train.show_stage

    def keep(*arguments: Any) -> None:
        shown(*arguments)
        pages[arguments[-2].name] = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")

    monkeypatch.setattr(train, "show_stage", keep)
    assert train.main(["--run", "run"]) == 0
    assert list(pages) == [stage.name for stage in tiny.stages]
    for number, (name, page) in enumerate(pages.items(), start=1):
        assert f"stage {name} is done, {number} of {len(tiny.stages)}" in page
        assert [f"{stage.name}: loss" in page for stage in tiny.stages] == [True] * number + [False] * (len(tiny.stages) - number)
        sources = () if name.startswith("warmup") else tiny.stages[number - 1].data
        pictures_of = [len(Shards(tmp_path / "run" / "pictures" / source.name)) for source in sources]
        assert page.count("<figure><img") == sum(min(4, count) for count in pictures_of if count > 1)
        assert ("<figure><img" in page) == bool(sources)
    assert not RunDirectory(tmp_path / "run").finished


def test_held_out_pictures_are_asked_on_the_way_and_change_nothing(tiny, tmp_path, capsys):
    assert train.main(["--run", "looked", "--evaluate-every", "1"]) == 0
    assert train.main(["--run", "plain"]) == 0
    looked, plain = (list(read_metrics(tmp_path / name)) for name in ("looked", "plain"))
    assert [(record["loss"], record["norm"]) for record in looked] == [(record["loss"], record["norm"]) for record in plain]
    tasks = ("description", "vqa", "ocr")
    scored = {f"score/{task}/{kind}" for task in tasks for kind in ("exact", "exact blind")}
    for record in looked:
        found = {name for name in record if name.startswith("score/")}
        assert found == (set() if record["stage"].startswith("warmup") else scored)
    page = (tmp_path / "looked" / "report.html").read_text(encoding="utf-8")
    assert page.count("held-out answers right, %") == page.count("with images swapped, %") == 3
    assert "held-out answers" not in (tmp_path / "plain" / "report.html").read_text(encoding="utf-8")
    # The last look is at the model that the end is about, and at as many pictures here.
    results = json.loads((tmp_path / "looked" / "results.json").read_text())["scores"]
    assert {task: looked[-1][f"score/{task}/exact"] for task in tasks} == {task: both["sighted"]["exact"] for task, both in results.items()}


def test_a_run_goes_on_with_other_workers_and_says_what_other_threads_mean(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "finish", lambda *arguments: None)
    assert train.main(["--run", "run", "--threads", "1"]) == 0
    begun = (tmp_path / "run" / "run.json").read_bytes()
    assert train.main(["--run", "run", "--workers", "2", "--save-seconds", "7", "--evaluate-every", "3"]) == 0
    assert torch.get_num_threads() == 1
    assert "threads" not in capsys.readouterr().err
    assert train.main(["--run", "run", "--threads", "2"]) == 0
    assert "the run was begun with 1 threads and goes on with 2: sums in another order" in capsys.readouterr().err
    assert torch.get_num_threads() == 2
    assert (tmp_path / "run" / "run.json").read_bytes() == begun
    assert train.main(["--run", "run", "--scale", "3"]) == 1
    assert "steps: the run has 1, asked for 3" in capsys.readouterr().err


def test_curves_stay_within_their_charts():
    charts = importlib.import_module("charts")
    stage = stages.TINY.stages[-1]
    rng = np.random.default_rng(0)
    records = [
        {"step": step, "loss": 5 / (1 + step), "norm": 0.0, "rate/encoder": 1e-3 * step, "tokens_per_second": 1e4 * rng.random()}
        | {"waiting": rng.random(), "padding": 1.0, "mfu": 0.4}
        for step in range(stage.steps)
    ]
    figures = charts.charts(stage, records)
    lines = re.findall(r'points="([^"]*)"', figures)
    assert len(lines) == 2 * 3 + 1 + 2 + 1
    for line in lines:
        for x, y in (point.split(",") for point in line.split()):
            assert charts.LEFT <= float(x) <= charts.WIDTH
            assert 0 <= float(y) <= charts.HEIGHT - charts.BOTTOM
    without = charts.charts(stage, [{"step": 0, "loss": 1.0, "norm": 1.0, "rate/encoder": 0.1}])
    assert re.findall(r"<figcaption>([^<]*?) <", without) == [f"{stage.name}: loss", "gradient norm", "learning rate"]


def test_a_strangers_connector_trains_by_its_name(tiny, tmp_path):
    plugin = tmp_path / "stranger.py"
    plugin.write_text(
        """
from dataclasses import dataclass
from torch import nn
from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.features import Features

@connectors.register("stranger")
@dataclass(frozen=True, kw_only=True)
class Stranger(Connector):
    def grid_out(self, grid):
        return grid
    def build(self, dim_in, dim_out):
        return Module(dim_in, dim_out)

class Module(nn.Module):
    def __init__(self, dim_in, dim_out):
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out)
    def forward(self, features):
        return Features(self.linear(features.tokens), features.grids)
"""
    )
    assert train.main(["--plugin", str(plugin), "--connector", "stranger", "--run", "run"]) == 0
    model, _ = vlmkit.load(tmp_path / "run" / "checkpoint")
    assert model.config.spec.connector.kind == "stranger"
    started = vlmkit.build(SMALL, connector="stranger", seed=0)
    assert not torch.equal(started.connector.linear.weight, model.connector.linear.weight)


def test_the_full_preset_says_all_that_is_missing_and_touches_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # also where the extra is installed
    write_shards(tmp_path / "data" / "coco", 1)
    assert train.main(["--preset", "full", "--data", "data"]) == 1
    said = capsys.readouterr().err
    assert "32.9 billion parameters take 490 GiB" in said
    assert "DeepSpeed" in said
    assert "in a folder of its name): redcaps, synthtext, gqa, textvqa, docvqa" in said
    assert train.main(["--preset", "full"]) == 1
    assert "give its directory with --data" in capsys.readouterr().err
    assert train.main(["--preset", "full", "--engine", "fsdp2", "--model", SMALL.name, "--weights", "random", "--data", "data"]) == 1
    said = capsys.readouterr().err  # a small model learns without a GPU, and another engine without DeepSpeed
    assert "CUDA" not in said
    assert "DeepSpeed" not in said
    assert "redcaps, synthtext" in said
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def write_shards(folder: Path, samples: int) -> None:
    """Shards of noise, each picture with its number as the answer."""
    rng = np.random.default_rng(0)
    with ShardWriter(folder) as writer:
        for number in range(samples):
            height, width = rng.integers(80, 200, 2)
            picture = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(picture, "PNG")
            content = [{"type": "image", "image": 0}, {"type": "text", "text": "What number is it?"}]
            conversation = [{"role": "user", "content": content}, {"role": "assistant", "content": str(number)}]
            writer.write(vlmkit.Sample((picture.getvalue(),), (conversation,), folder.name, str(number)))


def test_the_stages_of_the_full_preset_train_on_shards(tmp_path):
    recipe = in_small(stages.FULL, steps=2)
    assert [stage.pack and stage.recompute for stage in recipe.stages] == [True] * 3
    for source in {source.name for stage in recipe.stages for source in stage.data}:
        write_shards(tmp_path / "data" / source, 20)
    write_shards(tmp_path / "data" / "eval" / "gqa", 20)
    run = RunDirectory(tmp_path / "run")
    run.begin({"preset": "full"})
    assert train.train(recipe, SMALL, run, seed=0, threads=1, data=tmp_path / "data") == 0
    assert [record["stage"] for record in read_metrics(run.path)] == ["align"] * 2 + ["pretrain"] * 2 + ["sft"] * 2
    assert json.loads((run.path / "results.json").read_text())["scores"].keys() == {"gqa"}
    assert (run.path / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "huge"], "invalid choice: 'huge'"),
        (["--scale", "0"], "expected a number above 0 and up to 100, got '0'"),
        (["--scale", "x"], "expected a number above 0 and up to 100, got 'x'"),
        (["--connector", "mpl"], "unknown connector 'mpl'; did you mean 'mlp'"),
        (["--policy", '{"kind": "squash", "sice": 3}'], "did you mean 'size'"),
        (["--policy", "pad_square"], "policy.size: missing"),
        (["--connector", "mlp:dept=3"], "connector.dept: unknown field, did you mean 'depth'"),
        (["--plugin", "nowhere.py"], "there is no file nowhere.py"),
        (["--threads", "0"], "--threads takes 1 or more"),
        (["--length", "0"], "--length takes 1 or more, got 0"),
        (["--preset", "full", "--batch-tokens", "5000"], "batch_tokens 5000 is no multiple of the 8192 tokens"),
        (["--sed", "x"], "--seed"),
    ],
)
def test_wrong_arguments_get_a_sentence_under_the_usage(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        train.main(arguments)
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.startswith("usage: train.py")
    assert "show this help message" not in said
    assert words in said
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_directory_of_a_run(tmp_path, capsys):
    (tmp_path / "photo.jpg").touch()
    for more in ([], ["--fresh"]):
        assert train.main(["--run", str(tmp_path / "photo.jpg"), *more]) == 1
        said = capsys.readouterr().err
        assert "photo.jpg" in said
        assert "holds no run" in said
        assert "choose another directory" in said


@pytest.mark.parametrize("given", ["mlp:depth=3", '{"kind": "mlp", "depth": 3}'])
def test_parts_are_exchanged_as_vlmkit_does_it(tiny, given):
    _, architecture = arguments.chosen(arguments.parser("").parse_args(["--connector", given]))
    assert architecture == SMALL.replace(connector=vlmkit.connectors["mlp"](depth=3))


def test_help_loads_no_torch():
    code = (
        f"import sys, runpy; sys.argv = ['train.py', '--help']; sys.path.insert(0, {str(FOLDER)!r})\n"
        "try: runpy.run_path(sys.path[0] + '/train.py', run_name='__main__')\n"
        "except SystemExit as left: sys.exit(left.code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--preset {tiny,full}" in done.stdout
    assert "default: None" not in done.stdout


def test_ctrl_c_while_torch_is_loaded_is_one_sentence(tmp_path):
    """This torch swallows it, as the real one does while it loads numpy."""
    (tmp_path / "torch.py").write_text("""
import time
try:
    print('loading', flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    pass
""")
    command = [sys.executable, str(FOLDER / "train.py"), "--run", str(tmp_path / "run")]
    with subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    assert process.returncode == 130
    assert said == "stopped; the same command goes on from there\n"


def test_a_batch_follows_from_its_number_and_pages_stand_where_the_pictures_stood():
    processor = vlmkit.build_processor(SMALL)
    stage = stages.TINY.stages[-1].replace(batch_size=3, data=(stages.Source(name="captions"),))

    def batch(make, number: int, seed: int = 0) -> dict[str, torch.Tensor]:
        return pictures.PictureBatches(processor, stage, seed, make)[number]

    def with_pixels(processor, drawn):
        return dict(processor.collate(pictures.prepared(processor, drawn)))

    shown, typed = batch(with_pixels, 7), batch(pictures.typed_pages, 7)
    again = batch(with_pixels, 7)
    assert all(torch.equal(value, again[name]) for name, value in shown.items())
    other = batch(with_pixels, 7, seed=1)["pixel_values"]
    assert other.shape != shown["pixel_values"].shape or not torch.equal(shown["pixel_values"], other)
    places = shown["visual_index"] >= 0
    assert torch.equal(typed["visual_index"], shown["visual_index"])
    assert "pixel_values" not in typed
    assert torch.equal(typed["input_ids"][~places], shown["input_ids"][~places])
    cells = batch(pictures.cells, 7)
    assert torch.equal(typed["input_ids"][places], cells["cells"][shown["visual_index"][places]])
    assert torch.equal(cells["pixel_values"], shown["pixel_values"])


def test_batches_go_to_workers_that_do_not_inherit_them():
    """Python 3.14 begins processes afresh; what goes to them is pickled."""
    stage = stages.TINY.stages[0].replace(batch_size=2)
    for make in pictures.WARM_UP.values():
        batches = pictures.PictureBatches(vlmkit.build_processor(SMALL), stage, 0, make)
        again = pickle.loads(pickle.dumps(batches))[3]
        assert all(torch.equal(value, again[name]) for name, value in batches[3].items())


def test_pictures_are_rendered_once_and_all_of_them_are_read_back(tmp_path):
    stage = stages.TINY.stages[-1].replace(steps=5, batch_size=4, warmup=0)
    wanted = pictures.counts([stage, stage])
    assert wanted == {"words": 16, "questions": 24}
    folder = tmp_path / "questions"
    calls: list[int] = []
    for _ in range(2):
        pictures.write_shards(folder, "questions", 24, seed=3, written=lambda: calls.append(1))
    assert len(calls) == 24
    shards = Shards(folder)
    assert shards[7] == pictures.sample_at("questions", 7, seed=3) != pictures.sample_at("questions", 7, seed=4)
    assert {len(sample.conversations) for sample in shards[:]} == {3}


def test_every_source_of_the_tiny_preset_is_known():
    named = {source.name for stage in stages.TINY.stages for source in stage.data}
    assert named == set(pictures.SOURCES)


def test_the_words_of_the_evaluation_are_never_trained_on():
    tasks = {task.name: task for task in pictures.evaluation_tasks(20)}
    words = {question.answer for question in tasks["ocr"].questions}
    trained = {sample.conversations[0][1]["content"] for sample in (pictures.sample_at("words", index, seed=0) for index in range(400))}
    assert words
    assert not words & trained
    assert {name: len(task.images) for name, task in tasks.items()} == {"description": 20, "vqa": 20, "ocr": 20}
