"""Code and command lines of README and docs run as they stand there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pages
import pytest
from PIL import Image

import vlmkit
from vlmkit import cli
from vlmkit.commands import data

REGISTERING = {"connectors.md", "data.md", "encoders.md", "evaluation.md", "fusions.md", "layouts.md", "policies.md"}
"""Pages that register parts: they run in a process of their own, so that the catalogue of the others stays as it is."""

NEEDS = {"use-with-trl.md": "trl"}
"""Pages about a library that is not in every installation."""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with photo.jpg, as the pages assume it."""
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [pages.ROOT / "README.md", *sorted((pages.ROOT / "docs").rglob("*.md"))], ids=lambda page: page.name)
def test_a_page_runs(page: Path, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not any(block.language in ("python", "console") for block in pages.blocks(page)):
        return
    if page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name])
    if page.name not in REGISTERING:
        pages.run_page(page)
        return
    done = subprocess.run(
        [sys.executable, pages.__file__, str(page)],
        cwd=desk,
        env=os.environ | {"PYTHONPATH": str(Path(vlmkit.__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "values compared" in done.stdout


def test_pages_compare_values() -> None:
    """The comments that are compared are still where the runner finds them."""
    python = [block for block in pages.blocks(pages.ROOT / "docs" / "connectors.md") if block.language == "python"]
    assert [block.file for block in python] == ["my_connector.py", None, None]
    assert "# 234" in python[1].text


def test_command_lines_of_the_readme_are_those_of_the_page_that_runs_them() -> None:
    (readme,) = (block for block in pages.blocks(pages.ROOT / "README.md") if "--plugin" in block.text)
    (page,) = (block for block in pages.blocks(pages.ROOT / "docs" / "connectors.md") if "--plugin" in block.text)
    shown = {line.removeprefix("$ ") for line in page.text.splitlines()}
    assert set(readme.text.splitlines()) <= shown


def test_the_readme_names_every_command() -> None:
    text = (pages.ROOT / "README.md").read_text(encoding="utf-8")
    commands = [*(name for name in cli.COMMANDS if name != "data"), *(f"data {name}" for name in data.COMMANDS)]
    assert [name for name in commands if f"| `vlmkit {name}` |" not in text] == []


def test_a_reader_of_ones_own_is_twenty_lines() -> None:
    (reader,) = (block for block in pages.blocks(pages.ROOT / "docs" / "data.md") if block.file is not None)
    assert len(reader.text.splitlines()) <= 20


def test_the_page_on_data_names_every_format() -> None:
    text = (pages.ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    builtin = [kind for kind in vlmkit.list_formats() if vlmkit.formats[kind].__module__.startswith("vlmkit.data.")]
    assert builtin
    assert [kind for kind in builtin if f"| `{kind}` |" not in text] == []
