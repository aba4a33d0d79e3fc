"""GGUF files that are cut, garbled or mean harm: a model, or one sentence with the file, in little time and memory."""

from __future__ import annotations

import random
import shutil
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from families.omnivlm_pair import FOLDER

import vlmkit
from tests.memory import peak_memory
from vlmkit.checkpoint_directory import CheckpointError
from vlmkit.cli import main
from vlmkit.gguf_files import MOST_ITEMS, GgufFile, write_gguf
from vlmkit.spec import SpecError

FILES = [path.name for path in sorted(FOLDER.glob("*.gguf"))]
every_file = pytest.mark.parametrize("file", FILES)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    for name in FILES:
        shutil.copy(FOLDER / name, tmp_path)
    return tmp_path


def said_of(directory: Path) -> str | None:
    """What loading says of a damaged directory, by vlmkit's own errors alone; None where it loads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            vlmkit.load(directory)
        except (CheckpointError, SpecError) as error:
            assert "\n" not in str(error)
            assert str(directory) in str(error)
            return str(error)
    return None


@every_file
def test_a_file_that_ends_early_is_refused_wherever_it_ends(file: str, pair: Path) -> None:
    sound = (pair / file).read_bytes()
    last = max(stored.start + stored.size for stored in GgufFile(pair / file).tensors.values())
    for length in [*range(0, 400, 3), *range(400, len(sound), 997), last - 1]:
        (pair / file).write_bytes(sound[:length])
        assert file in (said_of(pair) or ""), length


@every_file
def test_any_byte_of_a_header_may_be_another(file: str, pair: Path) -> None:
    sound, chance, refused = (pair / file).read_bytes(), random.Random(0), 0
    header = min(stored.start for stored in GgufFile(pair / file).tensors.values())
    for _ in range(60):
        damaged = bytearray(sound)
        damaged[chance.randrange(header)] = chance.randrange(256)
        (pair / file).write_bytes(damaged)
        refused += said_of(pair) is not None
    assert refused > 10


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(tensors: int = 0, fields: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, fields)


def bombs() -> Iterator[tuple[str, Callable[[], bytes], str]]:
    """What a file states that it does not have."""
    array = text("a") + struct.pack("<I", 9)
    far, side = 1 << 62, 1 << 20
    tensor = text("w") + struct.pack("<I", 2)
    yield "tensors without number", lambda: header(tensors=far), "tensors, and at most 50,000 are read"
    yield "fields without number", lambda: header(fields=far), "fields, and at most 10,000 are read"
    yield "a text of exabytes", lambda: header(fields=1) + struct.pack("<Q", far), "but the file has"
    yield "words without number", lambda: header(fields=1) + array + struct.pack("<IQ", 8, far), "values, and at most 1,000,000 are read"
    yield "numbers without number", lambda: header(fields=1) + array + struct.pack("<IQ", 4, MOST_ITEMS), "but the file has"
    yield "arrays of arrays", lambda: header(fields=1) + array + struct.pack("<IQ", 9, 10), "an array of type 9"
    yield "a field of no type", lambda: header(fields=1) + text("a") + struct.pack("<I", 13), "a field of type 13"
    yield "a tensor of petabytes", lambda: header(tensors=1) + tensor + struct.pack("<QQIQ", side, side, 0, 0), "ends at byte"
    yield "a tensor without end", lambda: header(tensors=1) + tensor + struct.pack("<QQIQ", far, far, 0, 0), "'w' is ("
    yield "a tensor of nothing", lambda: header(tensors=1) + tensor + struct.pack("<QQIQ", 0, 1, 0, 0), "'w' is ("
    yield "a tensor of many sides", lambda: header(tensors=1) + text("w") + struct.pack("<I", 1 << 31), "expected 1 to 4"
    yield "a tensor of no type", lambda: header(tensors=1) + tensor + struct.pack("<QQIQ", 1, 1, 99, 0), "is of type 99"
    yield "blocks that are not full", lambda: header(tensors=1) + tensor + struct.pack("<QQIQ", 33, 1, 8, 0) + b"\0" * 99, "do not fill"
    shared = (tensor + struct.pack("<QQIQ", 4, 4, 0, 0), text("v") + struct.pack("<IQQIQ", 2, 4, 4, 0, 0))
    yield "tensors that share bytes", lambda: header(tensors=2) + b"".join(shared) + b"\0" * 200, "in the middle of another"
    yield "another version", lambda: b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "turned the other way round"
    yield "a text that is none", lambda: header(fields=1) + struct.pack("<Q", 2) + b"\xff\xff" + b"\0" * 20, "no UTF-8"
    long = struct.pack("<IQ", 8, MOST_ITEMS) + MOST_ITEMS * (struct.pack("<Q", 40) + b"a" * 40)
    yield "a million words", lambda: header(fields=1) + array + long, "is of architecture None"
    yield "a long header", lambda: header(fields=1) + struct.pack("<Q", 65 << 20) + b"a" * (66 << 20), "at most 67,108,864 are read"


@pytest.mark.parametrize(("made", "words"), [pytest.param(made, words, id=name) for name, made, words in bombs()])
def test_what_is_without_measure_is_refused_at_once(made: Callable[[], bytes], words: str, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(made())
    begun = time.process_time()
    with peak_memory() as grown:
        said = said_of(tmp_path)
    assert time.process_time() - begun < 5
    assert grown() < 300 << 20
    assert said is not None
    assert words in said
    assert "a.gguf" in said


@every_file
@pytest.mark.parametrize("number", [10**6, (1 << 31) - 1])
def test_every_number_of_a_header_at_its_extremes_costs_little(file: str, number: int, pair: Path) -> None:
    held = GgufFile(pair / file)
    tensors, kind = {name: held.read(name) for name in held.tensors}, held.fields["general.architecture"]
    rest = {name: value for name, value in held.fields.items() if name != "general.architecture"}
    refused = 0
    for name in [name for name, value in rest.items() if isinstance(value, int) and not isinstance(value, bool)]:
        write_gguf(pair / file, kind, rest | {name: number}, tensors)
        begun = time.process_time()
        with peak_memory() as grown:
            refused += said_of(pair) is not None
        assert time.process_time() - begun < 5, name
        assert grown() < 300 << 20, name
    assert refused >= 6


def test_whole_numbers_are_no_weights(pair: Path) -> None:
    held = GgufFile(pair / FILES[0])
    rest = {name: value for name, value in held.fields.items() if name != "general.architecture"}
    tensors = {name: held.read(name) for name in held.tensors} | {"output_norm.weight": torch.ones(32, dtype=torch.int32)}
    write_gguf(pair / FILES[0], "qwen2", rest, tensors)
    assert "output_norm.weight is stored as whole numbers (I32)" in (said_of(pair) or "")


@pytest.mark.parametrize(
    "line",
    [
        "tokens --size 100x80 --model DIR",
        "plan DIR --micro-batch 1 --engine ddp --length 256",
        "chat DIR photo.png What? --max-new-tokens 1 --device cpu",
        "export DIR exported",
    ],
)
def test_commands_take_a_pair_and_say_in_one_line_what_is_wrong_with_it(
    line: str, pair: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path_factory.mktemp("desk"))
    Image.new("RGB", (50, 40)).save("photo.png")
    arguments = [str(pair) if word == "DIR" else word for word in line.split()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(arguments) == 0, capsys.readouterr().err
    capsys.readouterr()
    shutil.rmtree("exported", ignore_errors=True)
    (pair / FILES[0]).write_bytes((pair / FILES[0]).read_bytes()[:1000])
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert f"{pair / FILES[0]} cannot be read: its header states" in said
    assert len(said.strip().splitlines()) == 1
    assert not Path("exported").exists()
