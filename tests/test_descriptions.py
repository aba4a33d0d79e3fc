"""Counting needs parts, not a model, and parts need no torch: what is described, listed, counted or refused loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vlmkit
from vlmkit.cli import COMMANDS
from vlmkit.commands.data import COMMANDS as DATA_COMMANDS
from vlmkit.commands.list import FAMILIES

HEAVY = ("torch", "torchvision", "transformers", "timm", "open_clip", "tokenizers", "einops", "scipy", "pyarrow", "numpy", "PIL")
OF_PICTURES = ("numpy", "PIL")
"""What a picture's header is read with."""

COMMAND_LINES = """
import contextlib, io, json, sys
from vlmkit.cli import main
lines, heavy = json.load(sys.stdin)
found = []
for line in lines:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = main(line)
    found.append((line, code, out.getvalue().strip() != "", [name for name in heavy if name in sys.modules]))
print(json.dumps(found))
"""

EVERY_MODEL = """
import json, sys
import vlmkit
heavy = json.load(sys.stdin)
found = {}
for name in vlmkit.list_models():
    model = vlmkit.architecture(name)
    size, clip = vlmkit.Size(height=480, width=640), vlmkit.Clip(seconds=4, fps=2, size=vlmkit.Size(height=480, width=640))
    counted = model.tokens(size)
    try:
        counted_clip = model.tokens(clip=clip)
    except vlmkit.GridError:  # a tower that reads the tiles of one picture together takes no films
        counted_clip = None
    again = vlmkit.Architecture.from_json(model.to_json())
    whole = again == model.validate() and again.kinds() == model.kinds() and isinstance(model.blank_views, tuple)
    found[name] = (counted, counted_clip, whole, [module for module in heavy if module in sys.modules])
print(json.dumps(found))
"""


def fresh(code: str, given: Any) -> Any:
    """What the code prints, as JSON, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(given), capture_output=True, text=True, cwd=Path(vlmkit.__file__).parent.parent
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_named_model_is_counted_and_checked_without_torch() -> None:
    found = fresh(EVERY_MODEL, HEAVY)
    assert sorted(found) == vlmkit.list_models()
    assert len(found) >= 72
    for name, (tokens, tokens_of_clip, whole, loaded) in found.items():
        assert loaded == [], name
        assert whole, name
        assert 0 < tokens == vlmkit.architecture(name).tokens(vlmkit.Size(480, 640)), name
        assert tokens_of_clip is None or tokens_of_clip > 0, name
    assert sum(tokens_of_clip is None for _, tokens_of_clip, _, _ in found.values()) <= 4


def lines_that_describe() -> list[tuple[list[str], int]]:
    """Command lines that build nothing, with their exit codes: every help, every list, counts and steps of every model."""
    helps = [["--help"], *([name, "--help"] for name in COMMANDS), *(["data", name, "--help"] for name in DATA_COMMANDS)]
    lists = [["list"], *(["list", f"--{family}"] for family in FAMILIES), ["list", "univa*"]]
    size = ["--size", "640x480"]
    counts = [
        ["tokens", *size],
        ["tokens", *size, "--json"],
        ["tokens", "--video", "4s@2fps,640x480"],
        ["tokens", *size, "--connector", "mlp:depth=3", "--policy", "squash:size=378", "--encoder", "siglip"],
        ["tokens", *size, "--model", "llava-1.5-7b", "--connector", "joined", "--beside", "clip"],
    ]
    steps = [["show", "--steps", *size, "--model", name, *form] for name in vlmkit.list_models() for form in ([], ["--json"])]
    refused = [
        ["list", "nothing*"],
        ["tokens", *size, "--model", "univa-v"],
        ["plan", "univa-v"],
        ["plan", "univa-vl", "--stage", "nothing"],
        ["plan", "univa-vl", "--gpu", "h1"],
        ["plan", "univa-vl", "--engine", "zero9"],
        ["plan", "univa-vl", "--length", "16"],
        ["plan", "univa-vl", "--learn", "nothing"],
    ]
    return [*((line, 0) for line in (*helps, *lists, *counts, *steps)), *((line, 2) for line in refused)]


def test_command_lines_that_build_nothing_load_nothing_heavy() -> None:
    asked = lines_that_describe()
    assert len(asked) >= 1 + len(COMMANDS) + len(DATA_COMMANDS) + len(FAMILIES) + 2 * 72 + 15
    found = fresh(COMMAND_LINES, ([line for line, _ in asked], HEAVY))
    assert len(found) == len(asked)
    for (line, code), (_, returned, said, loaded) in zip(asked, found, strict=True):
        assert (line, returned, loaded) == (line, code, [])
        assert said == (code == 0), line


@pytest.mark.parametrize("command", [["tokens"], ["tokens", "--json"], ["show", "--steps"]], ids=" ".join)
def test_the_header_of_a_picture_needs_no_torch(tmp_path: Path, command: list[str]) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 48)).save(photo)
    heavy = [name for name in HEAVY if name not in OF_PICTURES]
    ((_, code, said, loaded),) = fresh(COMMAND_LINES, ([[*command, str(photo)]], heavy))
    assert (code, said, loaded) == (0, True, [])
