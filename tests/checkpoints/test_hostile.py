"""Directories that mean harm: no code of theirs runs, nothing asks on a terminal, nothing outside is read, and what is without measure is
refused in little time and memory."""

from __future__ import annotations

import ast
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import llava_upstream
from PIL import Image
from safetensors.torch import load_file, save_file

import vlmkit
from tests.tiny import shared
from vlmkit.checkpoint_files import MOST_ADDED_TOKENS, DamagedCheckpointError
from vlmkit.checkpoints import export
from vlmkit.language_model import LanguageModel
from vlmkit.spec import SpecError
from vlmkit.tokenizer import load_tokenizer

ROOT = Path(vlmkit.__file__).parent
CODE = """
import pathlib
pathlib.Path({ran!r}).write_text("ran")
from transformers import PreTrainedTokenizerFast, ProcessorMixin, PreTrainedConfig
class Tok(PreTrainedTokenizerFast): ...
class Proc(ProcessorMixin): ...
class Conf(PreTrainedConfig): ...
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("own")
    for each in shared():
        each.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("published")
    export(vlmkit.build("llava-1.5-tiny", seed=0), vlmkit.build_processor("llava-1.5-tiny"), directory)
    return directory


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of LLaVA's own layout."""
    return llava_upstream.write(tmp_path_factory.mktemp("original"), "llava")


def changed(path: Path, **fields: Any) -> None:
    said = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(said | fields))


def with_code(place: Path, ran: Path) -> None:
    """Every config refers to a file that would leave a mark."""
    (place / "evil.py").write_text(CODE.format(ran=str(ran)))
    refers = {"AutoTokenizer": ["evil.Tok", "evil.Tok"], "AutoProcessor": "evil.Proc", "AutoConfig": "evil.Conf", "AutoModel": "evil.Conf"}
    for name in ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        changed(place / name, auto_map=refers | {"AutoImageProcessor": "evil.Proc"})
    changed(place / "tokenizer_config.json", tokenizer_class="Tok")
    changed(place / "processor_config.json", processor_class="Proc")


@pytest.mark.parametrize("kind", ["own", "published", "original"])
def test_code_in_a_directory_is_not_run_whatever_is_typed(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> None:
    place, ran, photo = tmp_path / "evil", tmp_path / "ran", tmp_path / "photo.png"
    shutil.copytree(request.getfixturevalue(kind), place)
    with_code(place, ran)
    Image.new("RGB", (50, 40)).save(photo)
    for command in (["chat", place, photo, "--max-new-tokens", "1"], ["show", place, "-o", tmp_path / "p.html"], ["tokens", place, photo]):
        done = subprocess.run(
            [sys.executable, "-m", "vlmkit", *map(str, command)], input="y\n" * 20, capture_output=True, text=True, timeout=120, check=False
        )
        assert not ran.exists(), command
        assert "Traceback" not in done.stderr
        assert "[y/N]" not in done.stdout + done.stderr
        assert "Unknown" not in done.stderr


def test_a_tokenizer_with_code_is_not_run_and_nobody_is_asked(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, ran = tmp_path / "evil", tmp_path / "ran"
    shutil.copytree(own, place)
    with_code(place, ran)

    def asked(*_: Any) -> str:
        raise AssertionError("somebody is asked")

    monkeypatch.setattr("builtins.input", asked)
    try:
        load_tokenizer(str(place))
    except ValueError as error:
        assert "\n" not in str(error)
    assert not ran.exists()


def test_every_call_of_an_auto_class_says_whether_code_is_trusted() -> None:
    """transformers asks on the terminal where nothing is said."""
    silent, seen = [], 0
    for path in [*ROOT.rglob("*.py"), *(ROOT.parent / "recipes").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "from_pretrained":
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id.startswith("Auto"):
                seen += 1
                if "trust_remote_code" not in {keyword.arg for keyword in node.keywords}:
                    silent.append(f"{path}:{node.lineno}")
    assert seen >= 6
    assert not silent


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("file", ["../outside.safetensors", "{outside}", "/dev/zero", "..", "", "a\0b", "sub/model.safetensors", 7])
def test_an_index_names_files_beside_it_alone(own: Path, tmp_path: Path, file: Any) -> None:
    place = tmp_path / "model"
    shutil.copytree(own, place)
    outside = tmp_path / "outside.safetensors"
    shutil.move(place / "model.safetensors", outside)
    name = str(outside) if file == "{outside}" else file
    (place / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(load_file(outside), name)}))
    with pytest.raises(DamagedCheckpointError, match="the files of an index lie beside it"):
        vlmkit.load(place)


def test_pipes_and_devices_are_no_files(own: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("config.json", "tokenizer.json", "model.safetensors", "merges.txt")):
        place = tmp_path / str(number)
        shutil.copytree(own, place)
        (place / name).unlink(missing_ok=True)
        if number % 2:
            (place / name).symlink_to("/dev/zero")
        else:
            os.mkfifo(place / name)
        with pytest.raises(FileNotFoundError, match=r"no regular file|no checkpoint in"):
            vlmkit.load(place)


def test_an_adapter_beside_a_model_is_not_applied_in_silence(own: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(own, place)
    changed(place / "adapter_config.json", peft_type="LORA", base_model_name_or_path=str(own), r=1, target_modules=["q_proj"])
    with pytest.raises(DamagedCheckpointError, match=r"adapter_config\.json lies beside config\.json"):
        vlmkit.load(place)


def added(count: int) -> list[dict[str, Any]]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": 1000 + number, "content": f"<|{number}|>"} | plain for number in range(count)]


def deep(place: Path) -> None:
    said = json.loads((place / "config.json").read_text())
    said["architecture"]["encoder"]["layers"] = 10**6
    (place / "config.json").write_text(json.dumps(said))


BOMBS: dict[str, Callable[[Path], None]] = {
    "labels": lambda place: changed(place / "config.json", num_labels=10**9),
    "listed labels": lambda place: changed(place / "config.json", id2label={str(number): "a" for number in range(200_000)}),
    "layers": deep,
    "tokens": lambda place: changed(place / "tokenizer.json", added_tokens=added(300_000)),
    "tokens of the config": lambda place: changed(
        place / "tokenizer_config.json", added_tokens_decoder={str(each.pop("id")): each for each in added(MOST_ADDED_TOKENS + 1)}
    ),
    "more tokens": lambda place: changed(
        place / "tokenizer_config.json", extra_special_tokens=[f"<{number}>" for number in range(300_000)]
    ),
    "nesting": lambda place: (place / "config.json").write_text("[" * 10**6) and None,
    "a large file": lambda place: os.truncate(place / "tokenizer.json", 1 << 30),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_is_without_measure_is_refused_at_once(own: Path, tmp_path: Path, bomb: str) -> None:
    place = tmp_path / "model"
    shutil.copytree(own, place)
    BOMBS[bomb](place)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(DamagedCheckpointError, match=str(place)):
        vlmkit.load(place)
    assert time.process_time() - begun < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


@pytest.mark.parametrize("bomb", ["tokens", "tokens of the config", "more tokens", "a large file"])
def test_a_tokenizer_without_measure_is_refused_wherever_it_is_named(own: Path, tmp_path: Path, bomb: str) -> None:
    place = tmp_path / "model"
    shutil.copytree(own, place)
    BOMBS[bomb](place)
    begun = time.process_time()
    with pytest.raises(DamagedCheckpointError, match=str(place)):
        load_tokenizer(str(place))
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_language_model_without_measure_is_refused_at_once(tmp_path: Path, bomb: str) -> None:
    place = tmp_path / "words"
    model, processor = shared()
    model.language_model.save_pretrained(place)
    processor.tokenizer.save_pretrained(place)
    if bomb == "layers":
        changed(place / "config.json", num_hidden_layers=10**6)
    else:
        BOMBS[bomb](place)
    begun = time.process_time()
    with pytest.raises(DamagedCheckpointError, match=str(place)):
        LanguageModel.from_pretrained(place)
    assert time.process_time() - begun < 5


def test_a_template_that_does_not_end_is_refused(published: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(published, place)
    loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    (place / "chat_template.jinja").write_text(loops + "{{ messages[0].content }}")
    begun = time.process_time()
    with pytest.raises(SpecError, match="its program takes longer than 3 seconds"):
        vlmkit.load(place)
    assert time.process_time() - begun < 5


def test_whole_numbers_are_no_weights(own: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(own, place)
    weights = load_file(place / "model.safetensors")
    name = next(name for name in weights if name.endswith("weight"))
    save_file(weights | {name: weights[name].to(torch.int32)}, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(DamagedCheckpointError, match="whole numbers"):
        vlmkit.load(place)
