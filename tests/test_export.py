"""`vlmkit export`: what transformers' own class then loads answers the same, and what goes wrong leaves nothing behind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

import vlmkit
from tests.photos import picture
from vlmkit.checkpoints import FAMILIES, IN_GGUF, WITH_CODE, export
from vlmkit.cli import main
from vlmkit.commands.export import whole_directory
from vlmkit.connectors.mlp import Mlp
from vlmkit.layout.laid_out import LayoutError
from vlmkit.preprocess.policies.anyres import AnyRes

QUESTION = [{"role": "user", "content": [{"type": "image", "image": picture("coffee")}, {"type": "text", "text": "What is this?"}]}]


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a model that transformers has a class for."""
    folder = tmp_path_factory.mktemp("runs") / "llava"
    vlmkit.build("llava-1.5-tiny", seed=0).save_pretrained(folder / "checkpoint")
    vlmkit.build_processor("llava-1.5-tiny").save_pretrained(folder / "checkpoint")
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def answer_of_vlmkit(directory: Path) -> list[int]:
    model, processor = vlmkit.load(directory)
    batch = processor([QUESTION], add_generation_prompt=True)
    found: list[int] = model.generate(**batch, max_new_tokens=8, do_sample=False)[0, batch["input_ids"].shape[1] :].tolist()
    return found


def answer_of_transformers(directory: Path) -> list[int]:
    model, processor = AutoModelForImageTextToText.from_pretrained(directory), AutoProcessor.from_pretrained(directory)
    assert type(model) is LlavaForConditionalGeneration
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(QUESTION, **options)
    found: list[int] = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :].tolist()
    return found


@pytest.mark.parametrize("given", ["run", "checkpoint", "exported"])
def test_transformers_answers_what_vlmkit_answers(capsys: pytest.CaptureFixture[str], here: Path, run_directory: Path, given: str) -> None:
    source = run_directory if given == "run" else run_directory / "checkpoint"
    if given == "exported":  # a directory of transformers' own is read as well
        assert main(["export", str(source), "first"]) == 0
        source = Path("first")
    capsys.readouterr()
    assert main(["export", str(source), "out", "--format", "transformers"]) == 0
    assert capsys.readouterr().out == "out\n"
    assert answer_of_transformers(here / "out") == answer_of_vlmkit(here / "out") == answer_of_vlmkit(run_directory / "checkpoint")


def test_the_layout_of_llavas_own_code_is_written_where_it_is_asked_for(here: Path, run_directory: Path) -> None:
    assert main(["export", str(run_directory), "original", "--format", "llava"]) == 0
    said = json.loads((here / "original" / "config.json").read_text())
    assert (said["model_type"], said["mm_projector_type"], said["mm_vision_tower"]) == ("llava_llama", "mlp2x_gelu", "./vit/clip")
    assert answer_of_vlmkit(here / "original") == answer_of_vlmkit(run_directory / "checkpoint")


def test_an_empty_directory_is_filled_and_nothing_stands_beside_it(here: Path, run_directory: Path) -> None:
    Path("empty").mkdir()
    before = Path("empty").stat().st_ino
    assert main(["export", str(run_directory), "empty"]) == 0
    assert (here / "empty" / "config.json").is_file()
    assert Path("empty").stat().st_ino == before
    assert [path.name for path in here.iterdir()] == ["empty"]


def test_the_dtype_may_be_chosen(here: Path, run_directory: Path) -> None:
    assert main(["export", str(run_directory), "half", "--dtype", "bfloat16"]) == 0
    model, _ = vlmkit.load("half")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_an_architecture_without_a_class_is_refused_with_every_reason(
    capsys: pytest.CaptureFixture[str], here: Path, tmp_path: Path
) -> None:
    vlmkit.build("univa-vl-tiny", seed=0).save_pretrained(tmp_path / "univa")
    vlmkit.build_processor("univa-vl-tiny").save_pretrained(tmp_path / "univa")
    capsys.readouterr()
    assert main(["export", str(tmp_path / "univa"), "out"]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("vlmkit export: no published model class can express univa-vl-tiny:\n")
    first, *others = said.err.splitlines()[1:]
    assert first == "LlavaForConditionalGeneration has a plain 2-layer mlp, but the connector is 'conv_patch_merger'"
    assert "FuyuForCausalLM has raw patches" in said.err, "the nearest class comes first, and then the others"
    files = {*(FAMILIES | WITH_CODE | IN_GGUF).values()}
    assert len({line.partition(" ")[0] for line in (first, *others)}) == len(others) + 1 == len(files)
    assert max(map(len, said.err.splitlines())) < 200
    assert not said.out
    assert not list(here.iterdir())


def test_a_policy_without_a_processor_is_refused_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], here: Path, tmp_path: Path
) -> None:
    spec = vlmkit.architecture("llava-1.5-tiny").replace(policy=vlmkit.policies["anyres"](size=28))
    vlmkit.build(spec, seed=0).save_pretrained(tmp_path / "odd")
    vlmkit.build_processor(spec).save_pretrained(tmp_path / "odd")
    assert main(["export", str(tmp_path / "odd"), "out"]) == 1
    assert "policy 'anyres'" in capsys.readouterr().err
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("llava-1.5-tiny", {"connector": Mlp(depth=3)}, "LlavaForConditionalGeneration has a plain 2-layer mlp, but .* Mlp\\(depth=3"),
        ("pixtral-tiny", {"connector": "linear"}, "LlavaForConditionalGeneration has a plain 2-layer mlp, but the connector is 'linear'"),
        ("paligemma-tiny", {"connector": "mlp"}, "PaliGemmaForConditionalGeneration has one linear layer with bias, but .* 'mlp'"),
        ("llava-1.5-tiny", {"policy": AnyRes(size=28)}, "policy 'anyres' has no transformers image processor that makes one view"),
    ],
)
def test_the_class_that_comes_nearest_is_named_first_and_fields_where_they_decide(
    tmp_path: Path, name: str, changes: dict[str, Any], reason: str
) -> None:
    spec = vlmkit.architecture(name).replace(**changes)
    with pytest.raises(vlmkit.SpecError, match=rf"^no published model class can express {name}:\n{reason}"):
        export(vlmkit.build(spec, seed=0), vlmkit.build_processor(spec), tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("RUN", 2, "the following arguments are required: DIR"),
        ("RUN full", 1, "'full' is there already and is not empty"),
        ("RUN file", 1, "'file' is there already and is no directory"),
        ("RUN nowhere/out", 1, "there is no directory 'nowhere'"),
        ("RUN out --format onnx", 2, "invalid choice: 'onnx'"),
        ("RUN out --dtype int7", 1, "dtype 'int7'"),
        ("nowhere out", 1, "there is no directory 'nowhere'"),
        ("full out", 1, "no checkpoint in 'full'"),
    ],
)
def test_what_goes_wrong_has_words_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], here: Path, run_directory: Path, line: str, code: int, words: str
) -> None:
    Path("full").mkdir()
    Path("full", "notes.txt").write_text("mine")
    Path("file").touch()
    before = sorted(here.rglob("*"))
    assert main(["export", *line.replace("RUN", str(run_directory)).split()]) == code
    said = capsys.readouterr()
    assert re.sub(r"\s+", " ", said.err).count(words) == 1
    assert "Traceback" not in said.err
    assert not said.out
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("exists", [False, True])
def test_what_fails_halfway_leaves_nothing_behind(here: Path, exists: bool) -> None:
    if exists:
        Path("out").mkdir()

    def broken(partial: Path) -> None:
        (partial / "config.json").write_text("{}")
        raise LayoutError("halfway")

    with pytest.raises(LayoutError), whole_directory(here / "out") as partial:
        broken(partial)
    assert [path.name for path in here.rglob("*")] == (["out"] if exists else [])


def test_a_full_disk_is_one_sentence(
    capsys: pytest.CaptureFixture[str], here: Path, run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LlavaForConditionalGeneration, "save_pretrained", full)
    assert main(["export", str(run_directory), "out"]) == 1
    assert capsys.readouterr().err == "vlmkit export: cannot write 'out': No space left on device\n"
    assert not list(here.iterdir())
