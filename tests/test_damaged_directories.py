"""Every command that takes a directory, over every kind of damage: it works where the damage does not matter to it, or says in one
sentence what is wrong, with the place; nobody else's errors are seen."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vlmkit
from tests.data.packs import sample
from tests.evaluation.small_data import gqa
from tests.training.conftest import small
from vlmkit.checkpoints import export
from vlmkit.cli import build_parser, main
from vlmkit.data.mixes import Group, Ingredient, Mix
from vlmkit.data.shards import ShardWriter

MODEL = {
    "tokens": "tokens --size 100x80 --model DIR",
    "show": "show photo.png --model DIR -o out.png",
    "plan": "plan DIR --micro-batch 1 --engine ddp --length 256",
    "data stats": "data stats shards/a --model DIR --json",
    "data stats, its tokenizer": "data stats shards/a --model univa-vl-tiny --tokenizer DIR --json",
    "train": "train DIR --stages stages.yaml --data shards --run trained --workers 0 --threads 1",
    "train --weights": "train own.json --weights DIR --stages stages.yaml --data shards --run trained --workers 0 --threads 1",
    "compare": "compare DIR --connector mlp:depth=1 mlp:depth=2 --out study --stages stages.yaml --data shards --hold-out 2",
    "eval": "eval DIR --task gqa --data gqa --out eval --no-blind --max-new-tokens 1",
    "chat": "chat DIR photo.png What? --max-new-tokens 1 --device cpu",
    "serve": "serve DIR --port 0 --device cpu",
    "export": "export DIR exported",
}
LANGUAGE_MODEL = {
    "tokens": "tokens --size 100x80 --model univa-vl-tiny --language-model DIR",
    "show": "show photo.png --model univa-vl-tiny --language-model DIR -o out.png",
    "plan": "plan univa-vl-tiny --language-model DIR --micro-batch 1 --engine ddp --length 256",
    "data stats": "data stats shards/a --model univa-vl-tiny --language-model DIR --json",
    "train": "train univa-vl-tiny --language-model DIR --stages stages.yaml --data shards --run trained --workers 0 --threads 1",
    "compare": "compare small.json --language-model DIR words --out study --stages stages.yaml --data shards --hold-out 2",
}
SHARDS = {
    "data show": "data show DIR/a -o out.png",
    "data stats": "data stats DIR/a --json",
    "data mix": "data mix mine --data DIR",
    "train": "train small.json --stages stages.yaml --data DIR --run trained --workers 0 --threads 1",
    "train --evaluate": "train small.json --stages stages.yaml --data shards --evaluate DIR --evaluate-every 1 --run trained --workers 0",
    "compare": "compare small.json --connector mlp:depth=1 mlp:depth=2 --out study --stages stages.yaml --data DIR --hold-out 2",
}
RUN = {
    "train": "train small.json --stages stages.yaml --data shards --run DIR --workers 0 --threads 1",
    "consolidate": "consolidate DIR consolidated",
    "tokens": "tokens --size 100x80 --model DIR",
    "chat": "chat DIR photo.png What? --max-new-tokens 1 --device cpu",
}
STAGES = "stages:\n- {name: all, steps: 1, batch_size: 1, connector: 1.0e-2, data: [{name: a}]}\n"
READS_NO_DIRECTORY = {"list", "data pack"}
"""`data pack` reads what others publish, and tests/data/formats damages that."""
FILES = {
    "model": (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "processor_config.json",
    ),
    "shards": ("a/index.json", "a/rows.npy", "a/sizes.npy", "a/*.tar"),
    "run": ("run.json", "metrics.jsonl", "state/*/position.json", "state/*/rank-00000.safetensors", "state/*/rank-00000.json"),
}
MINE = Mix(name="mine", about="", groups=(Group(share=1.0, sources=(Ingredient(name="a", published="", format="coco"),)),))
OTHER_TYPES = {
    "model_type": 7,
    "architecture": [3],
    "architectures": 3,
    "tokenizer_class": [1],
    "text_config": "a",
    "position": 1,
    "files": [],
}


def ways(sound: bytes) -> Iterator[tuple[str, bytes | None]]:
    """How a file may be broken; None: it is gone."""
    yield "empty", b""
    yield "half", sound[: len(sound) // 2]
    yield "garbage", b"\x93\x00\xffgarbage" * 50
    yield "no JSON", b"{ not JSON"
    yield "not UTF-8", b'{"model_type": "\xe9\xff"}'
    yield "a list", b"[1, 2]"
    yield "an empty object", b"{}"
    yield "other types", json.dumps(OTHER_TYPES).encode()
    yield "a header of garbage", (40).to_bytes(8, "little") + b'{"weight": {"dtype": "F7", "shape": 3}} ' + b"\0" * 100
    yield "a broken template", b"{% for message in messages %}{{ message"
    yield "gone", None


def put(file: str, content: bytes | None, place: Path) -> None:
    (place / file).unlink()
    if content is not None:
        (place / file).write_bytes(content)


def make_directory(file: str, place: Path) -> None:
    (place / file).unlink()
    (place / file).mkdir()


def emptied(place: Path) -> None:
    shutil.rmtree(place)
    place.mkdir()


def made_a_file(place: Path) -> None:
    shutil.rmtree(place)
    place.write_bytes(b"{}")


def damages(kind: str, sound: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Names and makers of damage: each is given a copy of the directory."""
    for pattern in FILES[kind]:
        for path in sound.glob(pattern):
            file = str(path.relative_to(sound))
            for way, content in ways(path.read_bytes()):
                yield f"{file}, {way}", partial(put, file, content)
            yield f"{file}, a directory", partial(make_directory, file)
    yield "an empty directory", emptied
    yield "a file", made_a_file
    yield "not there", shutil.rmtree
    if kind == "model":
        yield "an index that names a missing file", partial(with_index, {"weight_map": {"weight": "model-00001-of-00002.safetensors"}})
        yield "an index without names", partial(with_index, {"weight_map": 3})


def with_index(index: Any, place: Path) -> None:
    (place / "model.safetensors").unlink()
    (place / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound directories of every kind, and what commands take beside them."""
    place = tmp_path_factory.mktemp("desk")
    model, processor = vlmkit.build("llava-1.5-tiny", seed=0), vlmkit.build_processor("llava-1.5-tiny")
    model.save_pretrained(place / "own")
    processor.save_pretrained(place / "own")
    (place / "own.json").write_text(model.spec.to_json())
    export(model, processor, place / "published")
    vlmkit.build(small(), seed=0).language_model.save_pretrained(place / "words")
    vlmkit.build_processor(small()).tokenizer.save_pretrained(place / "words")
    for source in "ab":
        with ShardWriter(place / "shards" / source) as writer:
            for number in range(4):
                assert writer.write(sample(number, source))
    gqa(place / "gqa", lambda *_: "yes")
    Image.new("RGB", (80, 60)).save(place / "photo.png")
    (place / "small.json").write_text(small().to_json())
    (place / "stages.yaml").write_text(STAGES)
    return place


class Desk:
    """A copy of the desk to work on, and one directory there that is damaged again and again."""

    def __init__(self, sound: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.here, self.capsys = here, capsys
        for path in sound.iterdir():
            (here / path.name).symlink_to(path)
        self.before = set(here.iterdir())
        self.damaged = here / "damaged"

    def run(
        self, line: str, sound: Path, damage: Callable[[Path], None] | None = None, somebody: Callable[[], Any] = nullcontext
    ) -> tuple[int, str]:
        """Exit status of a command and what it says on stderr."""
        shutil.copytree(sound, self.damaged)
        if damage is not None:
            damage(self.damaged)
        try:
            with somebody():
                code = main(line.replace("DIR", "damaged").split())
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        finally:
            self.tidy()
        return code, self.capsys.readouterr().err

    def wrong(
        self,
        line: str,
        sound: Path,
        damage: Callable[[Path], None],
        of_sound: tuple[int, str],
        somebody: Callable[[], Any] = nullcontext,
    ) -> str | None:
        """What is wrong with what a command says of a damaged directory; None where nothing is."""
        code, said = self.run(line, sound, damage, somebody)
        if code in (0, 130) or (code, said) == of_sound:  # done, or it came to what is stopped here
            return None
        lines = [each for each in said.splitlines() if not each.endswith("--help' tells what it takes.")]
        lines = lines[:1] if lines[0].endswith(":") else lines  # a sentence may end in a list: what was rejected, what differs
        foreign = re.search(r"[A-Za-z](Error|Exception)\b|Traceback|weights_only|allow_pickle", said)
        return None if code in (1, 2) and len(lines) == 1 and "damaged" in said and not foreign else f"{code}, {said!r}"

    def tidy(self) -> None:
        for path in set(self.here.iterdir()) - self.before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def stop(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.fixture
def at_desk(desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """What takes long once everything is read does not run: answers, steps, trials and waiting for requests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("uvicorn.Server.run", stop)
    monkeypatch.setattr("vlmkit.evaluation.tasks.evaluate", stop)
    monkeypatch.setattr("vlmkit.comparing.study.Study.run", stop)
    monkeypatch.setattr("vlmkit.data.mixes._own", {"mine": MINE})
    made = Desk(desk, tmp_path, capsys)
    if not (desk / "run").exists():
        assert main(RUN["train"].replace("DIR", "run").split()) == 0
        shutil.rmtree("run/checkpoint")
        shutil.move("run", desk / "run")
    return made


def of_parser(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, str]]:
    """Every command, and the words for each thing it takes."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner, each in action.choices.items():
                yield from of_parser(each, f"{name} {inner}".strip())
        elif name:
            yield name, f"{action.metavar}"


def test_every_command_that_takes_a_directory_is_walked() -> None:
    takes: dict[str, set[str]] = {}
    for command, metavar in of_parser(build_parser()):
        takes.setdefault(command, set()).add(metavar)
    read = ("MODEL", "RUN", "SHARDS", "DIR", "DIR_OR_ADDRESS")
    expected = {command for command, words in takes.items() if words.intersection(read)}
    walked = {name.partition(" --")[0].partition(",")[0] for table in (MODEL, LANGUAGE_MODEL, SHARDS, RUN) for name in table}
    assert walked == expected - {"data"} == set(takes) - READS_NO_DIRECTORY - {"data"}
    assert len(walked) == 13


def walk(at_desk: Desk, kind: str, sound: Path, line: str, share: slice) -> None:
    of_sound = at_desk.run(line, sound)
    assert of_sound[0] in (0, 130) or (sound.name, line) in REFUSED, of_sound
    every = [*damages(kind, sound)]
    assert len(every) > 40
    wrong = [f"{name}: {found}" for name, damage in every[share] if (found := at_desk.wrong(line, sound, damage, of_sound))]
    assert not wrong, "\n".join(wrong)


EVERY = [
    *(("model", "own", line) for line in MODEL.values()),
    *(("model", "published", line) for line in MODEL.values()),
    *(("model", "words", line) for line in LANGUAGE_MODEL.values()),
    *(("shards", "shards", line) for line in SHARDS.values()),
    *(("run", "run", line) for line in RUN.values()),
]
"""What is damaged, the sound one, and the command."""
REFUSED = {("published", MODEL["train"]), ("published", MODEL["train --weights"]), ("run", RUN["chat"])}
"""A published config names no tokenizer, its weights are not vlmkit's, and a run that goes on has no checkpoint yet."""


@pytest.mark.parametrize(
    ("number", "case"), [*enumerate(EVERY)], ids=[f"{sound}-{line.replace(' ', '_')[:40]}" for _, sound, line in EVERY]
)
def test_some_damage_of_each_command(at_desk: Desk, desk: Path, number: int, case: tuple[str, str, str]) -> None:
    """Each command meets a share of all damage, and all commands together meet all of it."""
    kind, sound, line = case
    walk(at_desk, kind, desk / sound, line, slice(number % 20, None, 20))


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("name", ["", "config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("command", ["tokens", "plan", "serve"])
def test_what_may_not_be_read(at_desk: Desk, desk: Path, command: str, name: str) -> None:
    def locked(place: Path) -> None:
        (place / name).chmod(0)

    of_sound = at_desk.run(MODEL[command], desk / "own")
    at_desk.here.chmod(0o777)
    assert at_desk.wrong(MODEL[command], desk / "own", locked, of_sound, as_nobody) is None


@pytest.mark.slow
@pytest.mark.parametrize("case", EVERY, ids=[f"{sound}-{line.replace(' ', '_')[:40]}" for _, sound, line in EVERY])
def test_all_damage_of_each_command(at_desk: Desk, desk: Path, case: tuple[str, str, str]) -> None:
    kind, sound, line = case
    walk(at_desk, kind, desk / sound, line, slice(None))
