"""`vlmkit.load` finds a checkpoint as `from_pretrained` does, and a run's besides; code that lies there is not run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vlmkit
from tests.tiny import CONVERSATIONS, architecture, shared
from vlmkit.checkpoint_directory import CheckpointError, checkpoint_directory

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "fedcba9876543210fedcba9876543210fedcba98"
BATCH = [CONVERSATIONS[0]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved")
    for each in shared():
        each.save_pretrained(directory)
    return directory


@pytest.fixture
def offline(saved: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a machine without network that keeps files of owner/name as huggingface_hub does: two commits, of which `main`
    has the checkpoint at its top, and `old` in a folder."""
    kept = tmp_path / "hub" / "models--owner--name"
    for commit, folder, branch in ((COMMIT, "", "main"), (OLDER, "inner", "old")):
        shutil.copytree(saved, kept / "snapshots" / commit / folder)
        (kept / "refs").mkdir(exist_ok=True)
        (kept / "refs" / branch).write_text(commit)
    return os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}


def test_a_run_and_its_checkpoint_are_the_same_model(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved, run / "checkpoint")
    (run / "run.json").write_text("{}")
    model, processor = vlmkit.load(run)
    assert torch.equal(model(**processor(BATCH)).logits, shared()[0](**shared()[1](BATCH)).logits)
    assert checkpoint_directory(str(run)) == checkpoint_directory(run, subfolder="checkpoint") == run / "checkpoint"


def test_a_run_that_has_no_checkpoint_yet_says_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"has not finished, so it has no checkpoint yet.*`vlmkit consolidate .* DIR` writes"):
        vlmkit.load(tmp_path)


def test_names_of_a_hub_are_read_from_what_is_kept_here(offline: dict[str, str]) -> None:
    program = """
import json, sys, time, torch, vlmkit
told = []
for options in json.loads(sys.argv[1]):
    begun = time.perf_counter()
    try:
        model, processor = vlmkit.load("owner/" + options.pop("name", "name"), **options)
        told.append(float(model.get_input_embeddings().weight.detach().double().sum()))
    except FileNotFoundError as error:
        told.append(str(error))
        assert time.perf_counter() - begun < 5, options  # six attempts take half a minute
print(json.dumps(told))
"""
    asked = [
        {},
        {"revision": COMMIT},
        {"revision": "old", "subfolder": "inner"},
        {"revision": "old"},
        {"subfolder": "inner"},
        {"revision": "nowhere"},
        {"name": "nothing"},
    ]
    done = subprocess.run([sys.executable, "-c", program, json.dumps(asked)], capture_output=True, text=True, env=offline, check=False)
    assert done.returncode == 0, done.stderr
    assert "Retrying" not in done.stderr
    *read, no_config, no_folder, no_revision, nothing = json.loads(done.stdout)
    assert read == [float(shared()[0].get_input_embeddings().weight.detach().double().sum())] * 3
    assert "config.json" in no_config
    assert "inner/config.json" in no_folder
    assert "the hub gives no repository 'owner/name', revision 'nowhere'," in no_revision
    assert "the hub gives no repository 'owner/nothing'" in nothing
    assert "hf download owner/nothing" in nothing


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "by_sample"])
def test_attention_is_chosen_where_a_model_is_built_and_loaded(saved: Path, implementation: str) -> None:
    built = vlmkit.build(architecture(), seed=0, attn_implementation=implementation)
    loaded, processor = vlmkit.load(saved, attn_implementation=implementation)
    for model in (built, loaded):
        assert model.language_model.config._attn_implementation == implementation
    torch.testing.assert_close(loaded(**processor(BATCH)).logits, shared()[0](**processor(BATCH)).logits, rtol=0, atol=1e-5)
    assert vlmkit.load(saved)[0].language_model.config._attn_implementation == "by_sample"


def test_an_attention_that_nobody_knows_is_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        vlmkit.build(architecture(), attn_implementation="nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        vlmkit.load(saved, attn_implementation="nonsense")


def test_code_of_a_directory_is_never_run_by_load(saved: Path, tmp_path: Path) -> None:
    directory, ran = tmp_path / "of-a-stranger", tmp_path / "ran"
    shutil.copytree(saved, directory)
    (directory / "modeling_vlmkit.py").write_text(f"open({str(ran)!r}, 'w')\nfrom vlmkit.model import VLM\n")
    vlmkit.load(directory)
    vlmkit.build(architecture(), weights=directory)
    vlmkit.build_processor(directory)
    assert not ran.exists()


def test_what_is_neither_here_nor_a_hub_name_is_not_looked_up(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    for what, words in (
        ("nowhere", "there is no directory 'nowhere'"),
        (str(tmp_path / "mien"), "did you mean 'mine'"),
        (Path("owner/name"), "there is no directory 'owner/name'"),
        (tmp_path / "file", "is a file"),
        ("univa-vl-tiny", "is a named model, of which no trained weights are here"),
    ):
        with pytest.raises(CheckpointError, match=words):
            vlmkit.load(what)
