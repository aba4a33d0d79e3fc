"""Objectives as stages name them: read from files, refused where they do not fit, trained by `vlmkit train` on one process and on two."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from tests.data.packs import jpeg
from vlmkit import cli
from vlmkit.data.sample import Sample
from vlmkit.data.shards import ShardWriter
from vlmkit.spec import SpecError
from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.objectives import objectives
from vlmkit.training.stage import Stage
from vlmkit.training.stage_files import stages_from_yaml, stages_to_yaml

ROOT = Path(__file__).parents[2]
STAGES = {
    "autoregressive": "steps: 4, pack: true, max_length: 128, encoder: 3e-3, connector: 3e-3, language_model: 3e-3, head: 3e-3",
    "caption_contrast": "steps: 4, learn: {language_model: 1e-3, language_model.head: null}",
    "image_text_contrast": "steps: 4, encoder: 1e-3, head: 1e-3",
}
WRITTEN = {
    "autoregressive": "autoregressive:weight=0.5",
    "caption_contrast": "caption_contrast",
    "image_text_contrast": "{kind: image_text_contrast, dim: 16, blocks: 2}",
}
MODELS = {"autoregressive": "aimv2-tiny"} | dict.fromkeys(("caption_contrast", "image_text_contrast"), "llava-1.5-tiny")
every_kind = pytest.mark.parametrize("kind", STAGES)


def text(kind: str, rows: int = 2) -> str:
    written = f"objective: {WRITTEN[kind]}, batch_size: {rows}, schedule: constant, {STAGES[kind]}"
    return f"stages:\n- {{name: one, {written}, data: [{{name: a}}]}}\n"


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve pictures, most with two captions, one with a single one, one with words alone."""
    monkeypatch.chdir(tmp_path)
    with ShardWriter(tmp_path / "data" / "a") as writer:
        for number in range(12):
            image = [] if number == 5 else [{"type": "image", "image": 0}]
            asked = {"role": "user", "content": [*image, {"type": "text", "text": "What?"}]}
            said = [f"{number} and {'x' * (number % 5)}"] if number == 7 else [f"it is {number}", f"{number}, said otherwise"]
            talks = tuple([asked, {"role": "assistant", "content": one}] for one in said)
            assert writer.write(Sample((jpeg(number, 28, 42),) if image else (), talks, "a", str(number)))
    return tmp_path


def trained(kind: str, run: str, *more: str) -> int:
    return cli.main(["train", MODELS[kind], "--stages", "s.yaml", "--data", "data", "--run", run, "--workers", "0", *more])


@every_kind
def test_a_stage_with_an_objective_is_read_and_written(kind: str) -> None:
    (stage,) = stages_from_yaml(text(kind))
    assert stage.objective is not None
    assert stage.objective.kind == kind
    assert stages_from_yaml(stages_to_yaml([stage])) == (stage,)
    assert Stage.from_dict(stage.to_dict()) == stage
    assert "objective" not in stage.replace(objective=None, head=None, encoder=1e-3).to_dict()


def test_what_does_not_fit_is_named_with_its_line() -> None:
    def wrong(kind: str, *changed: tuple[str, str]) -> str:
        said = text(kind)
        for before, after in changed:
            assert before in said
            said = said.replace(before, after)
        with pytest.raises(SpecError) as raised:
            stages_from_yaml(said, "s.yaml")
        return str(raised.value)

    assert "s.yaml, line 2: stages[0].objective: unknown objective 'autoregresive'; did you mean 'autoregressive'" in wrong(
        "autoregressive", ("autoregressive:", "autoregresive:")
    )
    assert "stages[0].objective.weigth: unknown field, did you mean 'weight'?" in wrong("autoregressive", ("weight", "weigth"))
    assert "autoregressive.weight: expected more than 0, got -1" in wrong("autoregressive", ("0.5", "-1"))
    assert "objective 'autoregressive': a module learns beside the model in it; give head a learning rate" in wrong(
        "autoregressive", (", head: 3e-3", "")
    )
    for more, message in (
        ("head: 1e-3", "nothing learns beside the model in it; leave head out"),
        ("encoder: 1e-3", "it shows no image; leave encoder, connector and fusion out"),
        ("pack: true, max_length: 64", "its rows are captions of their own; leave pack out"),
    ):
        assert message in wrong("caption_contrast", ("steps: 4", f"steps: 4, {more}"))
    assert "by a language model that is frozen; leave language_model out" in wrong(
        "image_text_contrast", ("steps: 4", "steps: 4, language_model: 1e-3")
    )
    assert "image_text_contrast.dim" in wrong("image_text_contrast", ("dim: 16", "dim: 0"))
    assert "'objective'" in wrong("caption_contrast", ("objective:", "objectiv:"))


@every_kind
def test_the_command_trains_it_and_goes_on_to_the_same_losses(kind: str, desk: Path) -> None:
    Path("s.yaml").write_text(text(kind))
    assert trained(kind, "whole") == 0
    losses = [record["loss"] for record in read_metrics(desk / "whole")]
    assert len(losses) == 4
    assert all(loss == loss for loss in losses)
    assert len(set(losses)) == 4
    model, _ = vlmkit.load(desk / "whole")
    assert model.config.spec.name == MODELS[kind]
    assert trained(kind, "whole") == 0, "the same command finds it done"


@pytest.mark.parametrize("kind", ["autoregressive", "caption_contrast"])
def test_a_run_that_was_stopped_draws_what_it_would_have_drawn(kind: str, desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("s.yaml").write_text(text(kind))
    assert trained(kind, "whole") == 0
    task = type(objectives[kind]().task(vlmkit.architecture(MODELS[kind])))
    plain, calls = task.__call__, []

    def stopped(self: Any, model: Any, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, model, batch)

    monkeypatch.setattr(task, "__call__", stopped)
    with pytest.raises(SystemExit) as stop:
        trained(kind, "twice")
    assert stop.value.code == 128 + signal.SIGTERM
    assert trained(kind, "twice") == 0
    assert len(calls) == 4
    one, other = ([record["loss"] for record in read_metrics(desk / name)] for name in ("whole", "twice"))
    assert one == other


def test_a_model_or_an_engine_that_does_not_fit_is_refused_before_anything_is_made(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.yaml").write_text(text("autoregressive"))
    assert cli.main(["train", "llava-1.5-tiny", "--stages", "s.yaml", "--data", "data", "--run", "run"]) == 2
    assert "objective 'autoregressive' does not fit llava-1.5-tiny: encoder 'clip' takes no prefix of patches" in capsys.readouterr().err
    assert trained("autoregressive", "run", "--engine", "fsdp2") == 2
    assert "stage 'one' has a head: it trains on engine 'single' or 'ddp', not on 'fsdp2'" in capsys.readouterr().err
    assert not Path("run").exists()


def test_samples_of_which_none_has_two_captions_are_an_error_with_a_name(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ShardWriter(desk / "poor" / "a") as writer:
        talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "one"}]
        assert writer.write(Sample((), (talk,), "a", "0"))
    Path("s.yaml").write_text(text("caption_contrast"))
    assert cli.main(["train", "llava-1.5-tiny", "--stages", "s.yaml", "--data", "poor", "--run", "run", "--workers", "0"]) == 1
    assert "caption_contrast draws two captions of one image together, and it has 1" in capsys.readouterr().err


def test_a_trainer_makes_the_task_of_a_stage_itself(desk: Path) -> None:
    from rich.console import Console

    from vlmkit.training.loop import Trainer
    from vlmkit.training.run import RunDirectory
    from vlmkit.training.sources import mixture, stage_data

    arch = vlmkit.architecture("llava-1.5-tiny")
    (stage,) = stages_from_yaml(text("caption_contrast"))
    task = objectives["caption_contrast"]().task(arch)
    data = stage_data(stage, vlmkit.build_processor(arch), desk / "data", seed=0, task=task)
    for name, how in (("given", {"loss": task}), ("made", {})):
        run = RunDirectory(desk / name)
        run.begin({"test": name})
        trainer = Trainer(run, vlmkit.build(arch, seed=0), console=Console(quiet=True), workers=0)
        trainer.train(stage, data, **how)  # type: ignore[arg-type]
        assert trainer.log is not None
        trainer.log.close()
        run.unlock()
    one, other = ([record["loss"] for record in read_metrics(desk / name)] for name in ("given", "made"))
    assert one == other
    with pytest.raises(SpecError, match="has objective 'caption_contrast', but what is made here are conversations"):
        mixture(stage, vlmkit.build_processor(arch), desk / "data", seed=0)


def port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@every_kind
def test_two_processes_train_it(kind: str, desk: Path) -> None:
    """Contrasts lose what one process does with rows as many as both have; a mixture deals its samples out to processes otherwise."""
    (desk / "s.yaml").write_text(text(kind))
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port(), "-m", "--"]
    command += ["vlmkit", "train", MODELS[kind], "--stages", "s.yaml", "--data", "data", "--run", "two", "--workers", "0", "--threads", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=desk, env=environment, text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    two = [record["loss"] for record in read_metrics(desk / "two")]
    assert len(two) == 4
    if kind != "autoregressive":
        (desk / "s.yaml").write_text(text(kind, rows=4))
        assert trained(kind, "one") == 0
        one = [record["loss"] for record in read_metrics(desk / "one")]
        assert max(abs(first - second) for first, second in zip(one, two, strict=True)) < 1e-4
