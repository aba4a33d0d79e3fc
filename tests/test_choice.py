"""What stands for a model on the command line: a name, a run, a checkpoint's directory, an architecture's JSON."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

import vlmkit
from tests.tiny import architecture, part
from vlmkit.checkpoints import export, family_of, model_type_of
from vlmkit.cli import main
from vlmkit.commands import UsageError
from vlmkit.commands.checkpoint import CheckpointError
from vlmkit.commands.choice import described
from vlmkit.registry import RegistryError

SMALL = architecture()


def _directories(where: Path) -> dict[str, Path]:
    """Everything that describes the small model, by what it is."""
    config, begun = json.dumps({"model_type": "vlmkit", "architecture": SMALL.to_dict()}), json.dumps({"architecture": SMALL.to_dict()})
    position = json.dumps({"model": {"architecture": SMALL.to_dict()}})
    files = {
        "checkpoint": {"config.json": config},
        "run": {"run.json": "{}", "checkpoint/config.json": config},
        "begun run": {"run.json": begun},
        "run of a loop of one's own": {"run.json": "{}", "state/000000001-1/position.json": position},
        "resized run": {"run.json": json.dumps({"architecture": {}}), "state/000000002-1/position.json": position},
        "JSON": {"small.json": SMALL.to_json()},
    }
    for name, written in files.items():
        for file, text in written.items():
            path = where / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return {name: where / name / ("small.json" if name == "JSON" else "") for name in files}


def test_each_describes_the_model_that_it_is_of(tmp_path: Path) -> None:
    assert {name: described(str(path)) for name, path in _directories(tmp_path).items()} == dict.fromkeys(_directories(tmp_path), SMALL)
    assert described(SMALL.to_json()) == SMALL
    assert described("univa-vl-tiny") == vlmkit.architecture("univa-vl-tiny")


def test_a_name_comes_before_a_directory_that_is_called_like_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _directories(tmp_path)["checkpoint"].rename("univa-vl-tiny")
    assert described("univa-vl-tiny").name == "univa-vl-tiny"
    assert described("./univa-vl-tiny") == SMALL


@pytest.mark.parametrize("name", ["llava-1.5-tiny", "paligemma-tiny", "qwen2-vl-tiny", "janus-tiny", "videollama3-tiny", "maya-tiny"])
def test_a_published_directory_is_described_without_its_weights(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(vlmkit.build(name, seed=0), vlmkit.build_processor(name), tmp_path)
        loaded = vlmkit.load(tmp_path)[0].spec
        assert described(str(tmp_path)) == loaded
        (tmp_path / "model.safetensors").unlink()
        assert family_of(model_type_of(str(tmp_path))).described(str(tmp_path)) == loaded


def test_tokens_show_and_plan_take_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = SMALL.tokens(vlmkit.Size(60, 90))
    for path in (*_directories(tmp_path).values(), SMALL.to_json()):
        assert main(["tokens", "--size", "90x60", "--model", str(path), "--json"]) == 0
        (told,) = json.loads(capsys.readouterr().out)
        assert [(row["model"], row["visual_tokens"]) for row in told["models"]] == [("small", count)]
    run = str(tmp_path / "run")
    assert main(["show", "--steps", "--size", "90x60", "--model", run]) == 0
    assert "small" in capsys.readouterr().out
    assert main(["plan", run, "--length", "64", "--micro-batch", "1", "--engine", "single", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["tokens", "--size", "90x60", "--model", run, "--policy", "squash:size=56", "--json"]) == 0
    ((row,),) = [image["models"] for image in json.loads(capsys.readouterr().out)]
    exchanged = SMALL.replace(policy=part(vlmkit.policies, "squash"))
    assert (row["model"], row["visual_tokens"]) == ("small+squash:size=56", exchanged.tokens(vlmkit.Size(60, 90)))


def test_what_describes_no_model_says_why(tmp_path: Path) -> None:
    for name, text in {"no.json": "{", "wrong.json": '{"name": "x"}', "picture.png": "\xff"}.items():
        (tmp_path / name).write_bytes(text.encode("latin-1"))
        with pytest.raises(UsageError, match=f"{name}' is no architecture"):
            described(str(tmp_path / name))
    with pytest.raises(UsageError, match="the model is no architecture"):
        described("{}")
    with pytest.raises(RegistryError, match="unknown model 'univa-v'; did you mean 'univa-vl'"):
        described("univa-v")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        described(str(tmp_path / "empty"))
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="vlmkit reads no checkpoints of model type 'llama'"):
        described(str(tmp_path / "empty"))
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "vlmkit", "architecture": {"name": "x"}}')
    with pytest.raises(CheckpointError, match="describes no architecture that can be read"):
        described(str(tmp_path / "empty"))
