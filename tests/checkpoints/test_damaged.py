"""A damaged directory gives a model all the same, or one sentence of vlmkit's own with the file in it; nothing that lies there is run."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import llava_upstream
from PIL import Image
from safetensors.torch import load_file

import vlmkit
from tests.tiny import shared
from vlmkit.checkpoint_directory import CheckpointError
from vlmkit.checkpoints import export
from vlmkit.spec import SpecError

KINDS = ("own", "published", "pickled", "original")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory of vlmkit's, one of a published class, the latter with weights as torch pickles them, and one of LLaVA's own layout with
    its tower within."""
    found = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for each in shared():
        each.save_pretrained(found["own"])
    export(vlmkit.build("llava-1.5-tiny", seed=0), vlmkit.build_processor("llava-1.5-tiny"), found["published"])
    shutil.copytree(found["published"], found["pickled"], dirs_exist_ok=True)
    weights = found["pickled"] / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    llava_upstream.write(found["original"], "llava")
    return found


def damaged(sound: bytes) -> Iterator[tuple[str, bytes | None]]:
    """How a file may be broken; None: it is gone."""
    yield "empty", b""
    yield "half", sound[: len(sound) // 2]
    yield "garbage", b"\x93\x00\xffgarbage" * 50
    yield "a list", b"[1, 2]"
    yield "an empty object", b"{}"
    yield "other types", b'{"a": 1, "model_type": 7, "tokenizer_class": [1], "architectures": 3, "image_processor_type": {}}'
    yield "gone", None


def refused(directory: Path) -> Exception | None:
    """What loading says, if it does not load."""
    try:
        vlmkit.load(directory)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_damaged_in_every_way_gives_a_model_or_a_sentence(sound: dict[str, Path], kind: str, tmp_path: Path) -> None:
    assert refused(sound[kind]) is None
    wrong, said = [], 0
    files = (path.relative_to(sound[kind]) for path in sound[kind].rglob("*") if path.is_file() and path.suffix != ".py")
    for file in sorted(map(str, files)):
        for way, content in damaged((sound[kind] / file).read_bytes()):
            place = tmp_path / "damaged"
            shutil.copytree(sound[kind], place)
            if content is None:
                (place / file).unlink()
            else:
                (place / file).write_bytes(content)
            error = refused(place)
            if error is not None:
                said += 1
                text = str(error)
                fits = isinstance(error, CheckpointError | SpecError) and str(place) in text
                fits = fits and "\n" not in text and "weights_only" not in text
                # What is sound JSON, or a text as templates are, fails where it is read.
                names = way in ("gone", "an empty object", "other types") or file in text or "the chat template" in text
                wrong += [] if fits and names else [f"{file}, {way}: {error!r}"]
            shutil.rmtree(place)
    assert not wrong, "\n".join(wrong)
    assert said > 20


def command(*arguments: str | Path, answers: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vlmkit", *map(str, arguments)], input=answers, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_command_says_it_in_one_line(sound: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "cut"
    shutil.copytree(sound["own"], place)
    (place / "model.safetensors").write_bytes(b"\0" * 5)
    photo = tmp_path / "photo.png"
    Image.new("RGB", (50, 40)).save(photo)
    done = command("chat", place, photo, "What?")
    assert done.returncode == 1
    assert f"vlmkit chat: {place / 'model.safetensors'} cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


class Mark:
    """Pickled, it writes a file where it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_a_pickle_that_does_something_is_not_run(sound: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "pickled"
    shutil.copytree(sound["pickled"], place)
    ran = tmp_path / "ran"
    for content in (pickle.dumps(Mark(str(ran))), None):
        if content is None:
            torch.save({"weight": Mark(str(ran))}, place / "pytorch_model.bin")
        else:
            (place / "pytorch_model.bin").write_bytes(content)
        error = refused(place)
        assert isinstance(error, CheckpointError)
        assert "nothing of it was run" in str(error)
        assert not ran.exists()
