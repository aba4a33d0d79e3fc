"""Whatever command runs and whoever writes: names, warnings, logs and tracebacks reach a terminal in letters."""

from __future__ import annotations

import ast
import json
import logging
import os
import pty
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import vlmkit
from tests.data.packs import conversation, jpeg, sample
from tests.training.conftest import small
from vlmkit.cli import COMMANDS, TRACEBACK, main
from vlmkit.commands import data
from vlmkit.data.sample import Sample
from vlmkit.data.shards import ShardWriter

EVIL = "\x1b]8;;x\x07\x1b[2J\x9b3J\r\u202eg[bold][link=x]é"
LETTERS = r"\x1b]8;;x\x07\x1b[2J\x9b3J\r\u202eg[bold][link=x]é"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
OWN = re.compile(r"\r\n|\x1b\[[\d;]*m|\x1b\[\?25[lh]|\x1b\[2K|\x1b\[1?A|\r")
"""What bars and tables of our own, and the terminal itself, write."""

ARGUMENTS = {
    "list": ["--plugin", EVIL],
    "tokens": [EVIL, "--model", EVIL],
    "show": [EVIL],
    "plan": [EVIL],
    "data pack": [EVIL, EVIL, "--format", EVIL],
    "data mix": [EVIL],
    "data stats": [EVIL],
    "data show": [EVIL],
    "train": [EVIL, "--stages", EVIL, "--data", "."],
    "compare": [EVIL, "--connector", EVIL, EVIL + "a"],
    "consolidate": [EVIL, EVIL],
    "eval": [EVIL, "--task", EVIL, "--data", EVIL],
    "chat": [EVIL, EVIL],
    "serve": [EVIL, "--host", EVIL],
    "export": [EVIL, EVIL],
}


def test_these_are_all_commands() -> None:
    known = [name for name in COMMANDS if name != "data"] + [f"data {name}" for name in data.COMMANDS]
    assert sorted(known) == sorted(ARGUMENTS)
    assert len(known) == 15


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Any:
    """What was printed since, in letters alone."""

    def read(times: int = 1) -> str:
        found = capsys.readouterr()
        assert not RAW.findall(found.out + found.err)
        assert (found.out + found.err).count(LETTERS[:-1]) >= times  # é may be \xe9
        return found.out + found.err

    return read


@pytest.mark.parametrize("command", ARGUMENTS)
def test_a_name_on_the_command_line(command: str, said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), *ARGUMENTS[command]]) in (1, 2)
    said()
    assert main([*command.split(), *ARGUMENTS[command], f"--{EVIL}"]) == 2
    said()


@pytest.mark.parametrize("command", ARGUMENTS)
def test_whoever_writes_under_a_command(command: str, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log, earlier = logging.getLogger(f"somebody.{command}"), logging.StreamHandler()
    log.addHandler(earlier)

    def run(arguments: object) -> None:
        log.addHandler(logging.StreamHandler())
        log.error("%s", EVIL)
        print(EVIL)
        sys.stderr.writelines([EVIL, "\n"])
        assert not sys.stdout.isatty()
        raise RuntimeError(EVIL)

    monkeypatch.setattr(import_module(f"vlmkit.commands.{command.replace(' ', '_')}"), "run", run)
    before = sys.stdout, sys.stderr
    assert main([*command.split(), *ARGUMENTS[command]]) == 1
    said(5)
    assert (sys.stdout, sys.stderr) == before
    assert earlier.stream is before[1]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (60, 80)).save(tmp_path / f"{EVIL}.png")
    return tmp_path


def test_pictures_parts_and_models(desk: Path, said: Any) -> None:
    file = desk / "a\x1b[2Jmodel.json"
    file.write_text(json.dumps(small().replace(name=EVIL).to_dict()))
    for argv in (
        ["tokens", f"{EVIL}.png", "--model", "univa-vl-tiny"],
        ["show", f"{EVIL}.png", "--model", "univa-vl-tiny", "-o", f"{EVIL}o.png"],
    ):
        code = main(argv)
        assert code == 0, said(0)
        said()
    assert main(["plan", str(file)]) in (0, 1, 2)
    assert "[2J" in said(0)


def test_data_sets(desk: Path, said: Any) -> None:
    with ShardWriter(desk / EVIL) as writer:
        assert writer.write(sample(0, EVIL))
        assert writer.write(Sample((jpeg(1),), (conversation(0),), EVIL, EVIL))
        assert not writer.write(Sample((b"",), (conversation(0),), EVIL, EVIL))
    for command in ("stats", "show"):
        code = main(["data", command, EVIL])
        assert code == 0, said(0)
        said(command == "stats")
    folder = desk / f"in{EVIL}"
    folder.mkdir()
    told = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": EVIL}]
    rows = [{"id": EVIL, "image": f"{EVIL}.jpg", "conversations": told}, {"id": "b", "image": "b.jpg", "conversations": told}]
    (folder / "b.jpg").write_bytes(jpeg(0))
    (folder / "data.json").write_text(json.dumps(rows))
    code = main(["data", "pack", str(folder), f"out{EVIL}", "--format", "llava", "--workers", "0", "--max-rejected", "0.9"])
    assert code == 0, said(0)
    said()


def test_from_training_to_answers(desk: Path, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step, with a model, a source, a run and a sample that call themselves so; a stage may not, and has what is left."""
    threads = torch.get_num_threads()
    (desk / "model.json").write_text(json.dumps(small().replace(name=EVIL).to_dict()))
    with ShardWriter(desk / "data" / EVIL) as writer:
        for number in range(4):
            assert writer.write(sample(number, EVIL))
    stage = {"name": "é[bold][link=x]", "steps": 1, "batch_size": 1, "max_length": 512, "connector": 1e-2, "data": [{"name": EVIL}]}
    (desk / "stages.yaml").write_text(json.dumps({"stages": [stage]}))
    run = f"run{EVIL}"
    told = ["--stages", "stages.yaml", "--data", "data", "--run", run, "--workers", "0", "--threads", "1"]
    assert main(["train", "model.json", *told]) == 0, said(0)
    assert EVIL.encode("unicode-escape").decode()[:20] in said()
    torch.set_num_threads(threads)
    assert main(["consolidate", run, f"one{EVIL}"]) == 0
    said()
    assert main(["chat", run, f"{EVIL}.png", "What?", "--max-new-tokens", "2", "--device", "cpu"]) == 0
    assert main(["export", run, f"other{EVIL}"]) in (0, 1)
    assert main(["eval", run, "--task", "gqa", "--data", EVIL]) in (1, 2)
    said()

    import uvicorn

    def answers(server: Any, sockets: object) -> None:
        for name in ("uvicorn.error", "uvicorn.access", "vlmkit.serving"):
            logging.getLogger(name).error("%s", EVIL)

    monkeypatch.setattr(uvicorn.Server, "run", answers)
    assert main(["serve", run, "--port", "0", "--device", "cpu", "--model", EVIL]) == 0
    said(2)


SCRIPT = f"""
import logging, sys, threading, warnings
logging.getLogger("held").addHandler(logging.StreamHandler())
import vlmkit.commands.list as command
from vlmkit.cli import main
EVIL = {EVIL!r}
def write():
    warnings.warn(EVIL)
    logging.getLogger("other").error(EVIL)
    logging.getLogger("held").error(EVIL)
    print(EVIL)
    print(EVIL, file=sys.stderr, flush=True)
def fail():
    raise RuntimeError(EVIL)
def run(arguments):
    from rich.console import Console
    from rich.table import Table
    from tqdm import tqdm
    from vlmkit.commands.table import print_table
    from vlmkit.screen import Bars, Screen, Words
    write()
    for _ in tqdm(range(2), desc=EVIL):
        pass
    print_table((EVIL,), [(EVIL,)], title=EVIL)
    console = Screen(stderr=True)
    console.print(EVIL)
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    console.print(table)
    with Bars(Words("{{task.description}}"), console=console) as bars:
        bars.add_task(EVIL)
        write()
    Console().print(EVIL, markup=False)
    threading.Thread(target=fail).start()
    fail()
command.run = run
sys.exit(main(["list"]))
"""


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_whoever_writes_in_a_process_of_its_own(terminal: bool) -> None:
    environment = os.environ | {TRACEBACK: "1", "TERM": "xterm-256color", "COLUMNS": "4000"}
    command = [sys.executable, "-c", SCRIPT]
    if terminal:
        master, slave = pty.openpty()
        with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment):
            os.close(slave)
            shown = b""
            try:
                while piece := os.read(master, 1 << 16):
                    shown += piece
            except OSError:  # Linux' way of saying that the other end is closed
                pass
        os.close(master)
        text = shown.decode()
        assert "\x1b[" in text, "the terminal is drawn on"
        text = OWN.sub("", text)
    else:
        done = subprocess.run(command, capture_output=True, env=environment)
        text = (done.stdout + done.stderr).decode().replace("\r", "", 3)  # tqdm's
    assert not RAW.findall(text)
    assert text.count(LETTERS) >= 20
    assert "Traceback" in text


def test_the_recipe_and_a_trial(desk: Path, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[1] / "recipes" / "univa"
    monkeypatch.syspath_prepend(str(folder))
    train, arguments = import_module("train"), import_module("arguments")
    with pytest.raises(SystemExit):
        train.main([f"--{EVIL}"])
    said()
    (desk / EVIL).mkdir()
    (desk / EVIL / "stranger").touch()
    assert train.main(["--run", EVIL]) == 1
    said()

    def fails(*given: object) -> None:
        logging.getLogger("somebody").warning(EVIL)
        print(EVIL)
        raise OSError(EVIL)

    monkeypatch.setattr(arguments, "chosen", fails)
    assert train.main([]) == 1
    said(2)

    from vlmkit.comparing import __main__ as of_a_trial
    from vlmkit.comparing.study import Study

    class Broken:
        def trial(self, name: str) -> None:
            print(name)
            raise RuntimeError(EVIL)

    monkeypatch.setattr(Study, "read", classmethod(lambda kind, path: Broken()))
    assert of_a_trial.main([str(desk), EVIL]) == 1
    assert r"RuntimeError: \x1b]8;;x\x07" in said()


def test_rich_is_asked_in_one_place() -> None:
    """Its consoles, bars and texts beside bars are those of vlmkit.screen, which take no markup and write letters."""
    root, seen = Path(vlmkit.__file__).parents[1], set()
    for path in (*(root / "vlmkit").rglob("*.py"), *(root / "recipes").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("rich", "vlmkit.screen")):
                seen.add(path)
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            assert called not in {"Console", "Progress", "TextColumn", "Live", "track"} or "harness" in path.parts, path
            assert not (isinstance(node, ast.keyword) and node.arg == "markup" and ast.unparse(node.value) != "False"), path
            asks = isinstance(node, ast.Attribute) and node.attr == "isatty" and ast.unparse(node.value) in ("sys.stdout", "sys.stderr")
            assert not asks, f"{path}: a guarded stream says that it is no terminal; vlmkit.terminal.is_terminal knows"
    assert len(seen) >= 8
