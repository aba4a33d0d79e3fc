"""`vlmkit train` from its arguments to answers: stopped, continued, consolidated, asked."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vlmkit
from tests.data.packs import sample
from vlmkit import cli
from vlmkit.checkpoints import export
from vlmkit.data.shards import ShardWriter
from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.one_pass import one_pass
from vlmkit.training.stage_files import stages_from_yaml, stages_to_yaml

PLUGIN = """
import vlmkit
from vlmkit.encoders.open_clip import OpenClip
from vlmkit.preprocess.policies.smart_resize import SmartResize

tiny = vlmkit.architecture("univa-vl-tiny")
config = tiny.language_model.config | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
vlmkit.register_model(
    tiny.replace(
        name="small",
        policy=SmartResize(min_pixels=4 * 784, max_pixels=12 * 784),
        encoder=OpenClip(width=32, layers=1, heads=2, image_size=56),
        language_model=tiny.language_model.replace(config=config),
    )
)
"""
STAGES = """
stages:
- {name: align, steps: 3, batch_size: 1, pack: true, max_length: 128, connector: 1.0e-2, data: [{name: a}, {name: b, weight: 2.0}]}
- name: sft
  steps: 6
  batch_tokens: 256
  pack: true
  max_length: 128
  learn: {language_model: 1.0e-3, connector: 1.0e-3}
  ema: 0.9
  data: [{name: a}]
"""


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a small model, stages, shards and a photo."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(PLUGIN)
    (tmp_path / "stages.yaml").write_text(STAGES)
    for source in "ab":
        with ShardWriter(tmp_path / "data" / source) as writer:
            for number in range(6):
                assert writer.write(sample(number, source))
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    before = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(before)


def given(run: str, *more: str, data: str = "data", stages: str = "stages.yaml") -> list[str]:
    few = "train small --plugin small.py --workers 0 --threads 1 --save-seconds 0"
    return [*few.split(), "--stages", stages, "--data", data, "--run", run, *more]


def stopped(arguments: list[str], run: Path, records: int) -> int:
    """The exit code of a process that gets SIGTERM once it has logged so many steps."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(cli.main(arguments))
        except SystemExit as leaving:
            os._exit(int(leaving.code or 0))
    log = run / "metrics.jsonl"
    ends = time.monotonic() + 120
    while (not log.exists() or log.read_bytes().count(b"\n") < records) and time.monotonic() < ends:
        time.sleep(0.005)
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_from_stages_through_a_stop_to_answers(desk, capsys):
    assert stopped(given("run"), desk / "run", 4) == 143
    assert not (desk / "run" / "checkpoint").exists()
    assert len(list(read_metrics(desk / "run"))) < 9
    # The directory of the data is the same one, however it is written.
    assert cli.main(given("run", data=str(desk / "data"))) == 0, capsys.readouterr().err
    assert [(record["stage"], record["step"]) for record in read_metrics(desk / "run")] == [
        (stage, step) for stage, steps in (("align", 3), ("sft", 6)) for step in range(steps)
    ]
    assert cli.main(given("whole")) == 0
    one, other = ((desk / name / "checkpoint" / "model.safetensors").read_bytes() for name in ("run", "whole"))
    assert one == other

    assert cli.main(["consolidate", "run", "averaged", "--averaged", "--plugin", "small.py"]) == 0
    assert (desk / "averaged" / "model.safetensors").read_bytes() != one
    assert cli.main(["consolidate", "run", "again", "--plugin", "small.py"]) == 0
    assert (desk / "again" / "model.safetensors").read_bytes() == one
    capsys.readouterr()
    answers = []
    for directory in ("run", "again"):
        assert cli.main(["chat", directory, "photo.png", "What?", "--max-new-tokens", "4", "--plugin", "small.py"]) == 0
        answers.append(capsys.readouterr().out)
    model, processor = vlmkit.load("again")
    assert answers == [model.chat(processor, "photo.png", "What?", max_new_tokens=4) + "\n"] * 2


def test_held_out_samples_are_scored_on_the_way(desk, capsys):
    assert cli.main(given("run", "--evaluate-every", "2", "--hold-out", "2")) == 0, capsys.readouterr().err
    scored = {(record["stage"], record["step"]): scores_of(record) for record in read_metrics(desk / "run") if scores_of(record)}
    assert list(scored) == [("align", 1), ("align", 2), ("sft", 1), ("sft", 3), ("sft", 5)]
    assert scored["align", 1].keys() == {f"score/{source}/{kind}" for source in "ab" for kind in ("loss", "exact", "exact blind")}
    assert scored["sft", 5]["score/a/loss"] < scored["align", 2]["score/a/loss"]
    # Without a look, and looked at through another directory: the same bits.
    assert cli.main(given("blind", "--hold-out", "2")) == 0
    losses = [[(record["loss"], record["norm"]) for record in read_metrics(desk / name)] for name in ("run", "blind")]
    assert losses[0] == losses[1]
    assert cli.main(given("elsewhere", "--evaluate-every", "6", "--evaluate", "data")) == 0
    assert scores_of(list(read_metrics(desk / "elsewhere"))[-1])
    capsys.readouterr()
    # How often is free in a run that goes on; what is trained on is not.
    assert cli.main(given("run", "--evaluate-every", "1", "--hold-out", "1")) == 1
    assert "hold_out: the run has 2, asked for 1" in capsys.readouterr().err


def scores_of(record: dict) -> dict[str, float]:
    return {name: value for name, value in record.items() if name.startswith("score/")}


def test_without_stages_a_model_sees_all_that_there_is_once(desk, capsys):
    """A folder of sources, or the folder of one; the stage is printed as a file that does the same."""
    few = ["train", "small", "--plugin", "small.py", "--workers", "0", "--threads", "1"]
    assert cli.main([*few, "--data", "data", "--run", "run"]) == 0
    (stage,) = stages_from_yaml(capsys.readouterr().out.partition("one pass:")[2].partition("\npass ")[0])
    assert stage == one_pass({"a": 6, "b": 6}, fresh=True)
    assert (stage.steps, stage.batch_size, stage.encoder, stage.language_model) == (2, 8, 1e-3, 1e-3)
    losses = [step["loss"] for step in read_metrics(desk / "run")]
    assert len(losses) == 2
    (desk / "printed.yaml").write_text(stages_to_yaml([stage]))
    assert cli.main([*few, "--stage", "printed.yaml", "--data", "data/a", "--data", "data/b", "--run", "other"]) == 0
    assert [step["loss"] for step in read_metrics(desk / "other")] == losses
    assert cli.main([*few[:1], "run", *few[2:], "--data", "data/b", "--run", "further"]) == 0
    said = capsys.readouterr().out
    assert "data:\n  - name: b\n" in said
    assert "language_model: 2.0e-05" in said
    assert "encoder" not in said.partition("one pass:")[2].partition("\npass ")[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (["data/a", "data"], "source 'a' lies at data/a and at"),
        (["empty"], "empty has no folder that 'vlmkit data pack' wrote"),
    ],
)
def test_data_without_stages_is_found_once_or_said(data, words, desk, capsys):
    (desk / "empty").mkdir()
    few = ["train", "small", "--plugin", "small.py", "--run", "run"]
    assert cli.main([*few, *(word for where in data for word in ("--data", where))]) == 1
    assert words in capsys.readouterr().err
    assert not (desk / "run").exists()


def test_a_directory_keeps_its_configuration(desk, capsys):
    short = desk / "short.yaml"
    short.write_text(STAGES.replace("steps: 3", "steps: 1").replace("steps: 6", "steps: 1"))
    assert cli.main(given("run", stages="short.yaml")) == 0
    capsys.readouterr()
    assert cli.main(given("run", "--seed", "1", stages="short.yaml")) == 1
    said = capsys.readouterr().err
    assert "seed: the run has 0, asked for 1" in said
    assert "--fresh to start anew" in said
    assert cli.main(given("run")) == 1
    assert "stages[align].steps: the run has 1, asked for 3" in capsys.readouterr().err
    assert cli.main(given("run", "--seed", "1", "--fresh", stages="short.yaml")) == 0
    assert len(list(read_metrics(desk / "run"))) == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--data", "nowhere"], "--data nowhere is no directory; 'vlmkit data pack' writes shards"),
        (["--stages", "nowhere.yaml"], "nowhere.yaml: cannot be read as stages"),
        (["--stages", "twin.yaml"], "twin.yaml: stages that follow each other need names of their own, but there are several 'align'"),
        (["--stages", "odd.yaml"], "batch_tokens 200 is no multiple of the 128 tokens that 1 process(es) take at once"),
        (["--stages", "typo.yaml"], "typo.yaml, line 3: stages[0].stepps: unknown field, did you mean 'steps'"),
        (["--workers", "-1"], "--workers takes 0 or more, got -1"),
        (["--threads", "0"], "--threads takes 1 or more, got 0"),
        (["--save-seconds", "-2"], "--save-seconds takes 0 or more, got -2.0"),
        (["--evaluate-every", "-1"], "--evaluate-every takes 0 or more, got -1"),
        (["--hold-out", "-1"], "--hold-out takes 0 or more, got -1"),
        (["--evaluate-every", "2"], "name them with --evaluate DIR, or keep some of each source back with --hold-out N"),
        (["--evaluate", "nowhere"], "--evaluate nowhere is no directory"),
        (["--evaluate", "data", "--hold-out", "1"], "--evaluate data and --hold-out 1 both say what is held out; leave one out"),
        (["--engine", "zero1"], "invalid choice: 'zero1'"),
        (["--dtype", "float16"], "invalid choice: 'float16'"),
        (["--connector", "mpl"], "unknown connector 'mpl'; did you mean 'mlp'"),
        (["--plugin", "nowhere.py"], "there is no file nowhere.py"),
    ],
)
def test_wrong_arguments_get_a_sentence_and_2(more, words, desk, capsys):
    (desk / "twin.yaml").write_text(STAGES.replace("name: sft", "name: align"))
    (desk / "odd.yaml").write_text(STAGES.replace("batch_tokens: 256", "batch_tokens: 200"))
    (desk / "typo.yaml").write_text(STAGES.replace("steps: 3", "stepps: 3"))
    assert cli.main(given("run", *more)) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (desk / "run").exists()


LATER = """
stages:
- {name: align, steps: 1, batch_size: 1, connector: 1.0e-2, data: [{name: a}]}
- {name: sft, steps: 1, batch_size: 1, LEARN, data: [{name: SOURCE}], MORE}
"""


@pytest.mark.parametrize(
    ("learn", "source", "more", "code", "words"),
    [
        (
            "learn: {encoder.resblock: 1.0e-3}",
            "a",
            "",
            2,
            "stage 'sft': learn['encoder.resblock'] holds no parameter",
        ),
        ("fusion: 1.0e-3", "a", "", 2, "stage 'sft': nothing learns, for small has no parameters in fusion"),
        ("connector: 1.0e-3, head: 1.0e-3", "a", "", 2, "stage 'sft': it has a rate for a head"),
        ("learn: {connector: 1.0e-3}", "a", "image_size: 112", 2, "policy 'smart_resize' makes no squares of one size"),
        ("learn: {connector: 1.0e-3}", "a", "adapters: {connector.mpl: {rank: 2}}", 2, "'connector.mpl' holds no linear layer"),
        ("learn: {connector: 1.0e-3}", "c", "", 1, "data/c' is no directory that 'vlmkit data pack' wrote"),
    ],
)
def test_what_would_stop_a_later_stage_is_said_before_the_first(learn, source, more, code, words, desk, capsys):
    """And no run is left in the directory, which would refuse the stages that were mended."""
    later = LATER.replace("LEARN", learn).replace("SOURCE", source).replace("MORE", more or "warmup: 0")
    (desk / "later.yaml").write_text(later)
    assert cli.main(given("run", stages="later.yaml")) == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (desk / "run").exists()


def test_a_model_that_nobody_knows_and_data_that_is_not_there(desk, capsys):
    assert cli.main(["train", "smal", *given("run")[2:]]) == 2
    assert "unknown model 'smal'; did you mean 'small'" in capsys.readouterr().err
    (desk / "data" / "b" / "index.json").unlink(missing_ok=True)
    (desk / "data" / "b").rename(desk / "data" / "c")
    assert cli.main(given("run")) == 1
    assert "data/b" in capsys.readouterr().err


def align(model: str, run: str, *more: str) -> int:
    """A step of the connector from a model that the working directory holds; the exit code."""
    stages = Path("align.yaml")
    stages.write_text("stages: [{name: align, steps: 1, batch_size: 1, connector: 1.0e-2, data: [{name: a}]}]")
    return cli.main(["train", model, "--stages", str(stages), "--data", "data", "--run", run, "--workers", "0", "--threads", "1", *more])


@pytest.mark.parametrize("kind", ["saved", "published"])
def test_a_directory_is_trained_from_its_own_weights_and_tokenizer(kind, desk):
    model, processor = vlmkit.build("llava-1.5-tiny", seed=3), vlmkit.build_processor("llava-1.5-tiny")
    if kind == "saved":
        model.save_pretrained("before")
        processor.save_pretrained("before")
    else:
        export(model, processor, "before")
    assert align("before", "run") == 0
    trained, speaks = vlmkit.load("run")
    before, after = model.state_dict(), trained.state_dict()
    assert {name.partition(".")[0] for name, value in before.items() if not torch.equal(value, after[name])} == {"connector"}
    assert speaks.tokenizer.get_vocab() == processor.tokenizer.get_vocab()


def test_exchanged_parts_take_no_weights_of_a_directory_unasked(desk, capsys):
    vlmkit.build("llava-1.5-tiny", seed=3).save_pretrained("before")
    vlmkit.build_processor("llava-1.5-tiny").save_pretrained("before")
    assert align("before", "run", "--connector", "mlp:depth=3") == 0
    assert json.loads((desk / "run" / "run.json").read_text())["weights"] is None
    assert align("before", "other", "--connector", "mlp:depth=3", "--weights", "before") == 1
    assert "connector.depth is 2 there, 3 here" in capsys.readouterr().err


def test_a_run_that_has_no_checkpoint_yet_is_no_model_to_begin_from(desk, capsys):
    assert stopped(given("run"), desk / "run", 4) == 143
    assert align("run", "other") == 1
    assert "this run has not finished, so it has no checkpoint yet" in capsys.readouterr().err
