"""`vlmkit compare`: every candidate is trained alike, stopped and continued, and told apart only where it differs."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import vlmkit
from tests.training.conftest import small
from vlmkit.cli import main
from vlmkit.comparing.candidates import candidates
from vlmkit.comparing.study import Study
from vlmkit.comparing.trial import RESULT, run, save_warmed, take_warmed
from vlmkit.comparing.world import DrawnWorld, ShardsWorld
from vlmkit.data.sample import Sample
from vlmkit.data.shards.pack import pack
from vlmkit.training.run import RunError
from vlmkit.training.stage import Source, Stage

STAGE = Stage(name="all", steps=3, batch_size=2, connector=1e-2, language_model=1e-2, data=(Source(name="colours"),))
CONNECTORS = ["conv_patch_merger", "mlp:depth=1"]


def coloured(number: int) -> Sample:
    import io

    file = io.BytesIO()
    Image.fromarray(np.full((56, 56, 3), 40 * (number % 6), np.uint8)).save(file, "PNG")
    asked = {"role": "user", "content": [{"type": "image", "image": 0}, {"type": "text", "text": "How bright?"}]}
    return Sample((file.getvalue(),), ([asked, {"role": "assistant", "content": str(number % 6)}],), "colours", str(number))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    pack(map(coloured, range(12)), tmp_path / "shards" / "colours", workers=0)
    return tmp_path / "shards"


def study(path: Path, shards: Path, seeds: int = 2) -> Study:
    return Study(path, tuple(candidates(small(), {"connector": CONNECTORS})), seeds, {1.0: ShardsWorld((STAGE,), shards, 4)})


def test_candidates_are_every_combination_and_share_what_a_connector_does_not_change():
    found = candidates(small(), {"connector": CONNECTORS, "policy": ["squash:size=56", "squash:size=84"]})
    assert [one.name for one in found] == [
        f"{policy} {connector}" for policy in ("squash:size=56", "squash:size=84") for connector in CONNECTORS
    ]
    assert found[0].warmed == found[1].warmed != found[2].warmed
    assert found[1].architecture.connector == vlmkit.connectors["mlp"](depth=1)
    for wrong in ({"connector": ["mlp"]}, {"connector": ["mlp", "mlp"]}, {}):
        with pytest.raises(ValueError, match="two or more candidates, each once"):
            candidates(small(), wrong)


def test_a_trial_goes_through_the_same_samples_whatever_its_tokens(shards, tmp_path):
    batches = []
    for trial in itertools.islice(study(tmp_path / "study", shards).trials(), 2):
        processor = vlmkit.build_processor(trial.architecture)
        stream = trial.world.batches(STAGE, processor, trial.folder, 0).batches()
        next(stream)
        batches.append(stream.taken)
    assert batches[0] == batches[1]
    with pytest.raises(ValueError, match="'all' packs rows"):
        ShardsWorld((STAGE.replace(pack=True, max_length=64),), shards, 4)


def test_a_comparison_is_stopped_and_goes_on_and_is_told(shards, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.json").write_text(small().to_json(), "utf-8")
    Path("stages.yaml").write_text(yaml.safe_dump({"stages": [STAGE.to_dict()]}), "utf-8")
    first = study(tmp_path / "out", shards)
    first.path.mkdir()
    first.write()

    def stop(trial, done, total):
        assert (done, total) == (1, 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(1, stop)
    before = json.loads((first.path / next(first.trials()).name / RESULT).read_text())
    Path("out/run.json").write_text('{"kind": "comparison"}')
    command = ["compare", "model.json", "--connector", *CONNECTORS, "--data", "shards", "--stages", "stages.yaml", "--hold-out", "4"]
    command += ["--seeds", "2", "--threads", "1", "--out", "out"]
    assert main([*command, "--jobs", "2"]) == 0
    told = capsys.readouterr()
    assert "2 of 4" in told.err
    assert "1 of 4" not in told.err
    assert all(name in told.out for name in CONNECTORS)
    assert "Two means differ" in told.out or "No difference" in told.out
    page = Path("out/report.html").read_text("utf-8")
    assert all(word in page for word in ("visual tokens", "data:image/png;base64", *CONNECTORS))
    again = study(tmp_path / "again", shards)
    trial = next(again.trials())
    assert run(trial, again.path, 1, again.digest(trial), lambda line: None)["scores"] == before["scores"]
    assert main([*command[:-4], "--threads", "2", "--out", "out"]) == 1
    assert "follows from another model, other data, stages or threads" in capsys.readouterr().err


def test_a_trial_that_goes_wrong_is_told_and_the_others_are_done(shards, tmp_path):
    broken = study(tmp_path / "study", shards, seeds=1)
    broken.path.mkdir()
    broken.write()
    name = next(broken.trials()).name
    (broken.path / name).mkdir(parents=True)
    (broken.path / name / "run.json").write_text('{"seed": 7}')
    with pytest.raises(RuntimeError, match=rf"(?s)1 of 2 trials went wrong.*{name}.*RunError"):
        broken.run(2, lambda *each: None)
    assert [broken.result(one, 0, 1.0) is not None for one in broken.candidates if one.name == CONNECTORS[1]] == [True]
    with pytest.raises(RunError, match="holds no comparison"):
        Study.read(tmp_path)


def test_what_was_warmed_up_is_shared_and_nothing_else(tmp_path):
    found = candidates(small(), {"connector": CONNECTORS})
    shared = Study(tmp_path, tuple(found), 2, {0.5: DrawnWorld(0.5, 4), 1.0: DrawnWorld(1.0, 4)})
    trials = list(shared.trials())
    assert [trial.warms for trial in trials] == [True] * 2 + [False] * 8
    assert {trial.warm for trial in trials[2:]} == {trial.name for trial in trials[:2]}
    assert len({shared.digest(trial) for trial in trials}) == 10
    warmed, fresh = vlmkit.build(found[0].warmed, seed=1), vlmkit.build(found[1].architecture, seed=2)
    connector = {name: value.clone() for name, value in fresh.connector.state_dict().items()}
    save_warmed(warmed, tmp_path / "warm.safetensors")
    take_warmed(fresh, tmp_path / "warm.safetensors")
    for part in ("encoder", "language_model"):
        assert all((a == b).all() for a, b in zip(getattr(fresh, part).parameters(), getattr(warmed, part).parameters(), strict=True))
    assert all((fresh.connector.state_dict()[name] == value).all() for name, value in connector.items())


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ([], 2, "two or more candidates"),
        (["--connector", "mlp", "mlpp"], 2, "did you mean 'mlp'"),
        (["--connector", "mlp", "mlp:dept=2"], 2, "did you mean 'depth'"),
        (["--connector", "mlp", "pixel_shuffle", "--data", "nowhere"], 2, "--data and --stages go together"),
        (["--connector", "mlp", "pixel_shuffle", "--data", "nowhere", "--stages", "x.yaml"], 2, "is no directory"),
        (["--connector", "mlp", "pixel_shuffle", "--scale", "0"], 2, "expected a number above 0"),
        (["--connector", "mlp", "pixel_shuffle", "--seeds", "0"], 2, "expected a whole number from 1 up"),
    ],
)
def test_wrong_arguments_get_a_sentence(more, code, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "univa-vl-tiny", *more]) == code
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
