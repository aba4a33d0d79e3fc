"""What is printed does not act on a terminal, whoever wrote it."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
import torch

import vlmkit
from tests.tiny import shared
from vlmkit.cli import main
from vlmkit.commands.table import print_table
from vlmkit.commands.terminal import printable, say, streamer

EVIL = "\x1b]0;title\x07\x1b[31mred\x9b2J\r\u202egnp.exe\x00"
ESCAPED = r"\x1b]0;title\x07\x1b[31mred\x9b2J\r\u202egnp.exe\x00"


def test_controls_become_letters_and_words_stay() -> None:
    assert printable(EVIL) == ESCAPED
    assert printable("Größe\t日本語\n🙂 é") == "Größe\t日本語\n🙂 é"


def test_say_tables_and_answers_are_printable(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL, Path("a\x1bb"))
    print_table(("name", EVIL), [("x", EVIL)], title=EVIL)
    printer = streamer(shared()[1].tokenizer)
    printer.put(shared()[1].tokenizer("", return_tensors="pt").input_ids)  # the prompt, which is not shown
    for token in shared()[1].tokenizer(EVIL)["input_ids"]:
        printer.put(torch.tensor([token]))
    printer.end()
    shown = capsys.readouterr().out
    assert not set(shown) & set("\x1b\x07\x9b\r\u202e\x00")
    assert shown.count(r"\x1b[31mred") >= 3


@pytest.mark.parametrize("command", [["tokens"], ["show"], ["plan"], ["chat", "model"], ["data", "show"], ["data", "stats"]])
def test_a_name_that_acts_on_a_terminal_is_shown_in_letters(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, str(tmp_path / "a\x1b[2Jb.png")]) != 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err


def test_commands_print_by_one_function() -> None:
    seen = 0
    for path in (Path(vlmkit.__file__).parent / "commands").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id == "say":
                seen += 1
            assert not (isinstance(called, ast.Name) and called.id == "print") or path.name == "terminal.py", path
    assert seen > 20


def test_words_go_where_they_were_sent() -> None:
    there = io.StringIO()
    say("a", 1, file=there)
    assert there.getvalue() == "a 1\n"
