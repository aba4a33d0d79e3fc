"""What docs/generate.py writes is current: the catalogue, the pages of families and their pictures, tables, navigation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pages
import pytest

import vlmkit

SCRIPT = pages.ROOT / "docs" / "generate.py"


def test_it_is_up_to_date() -> None:
    """In a process of its own: other tests register parts."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"],
        env=os.environ | {"PYTHONPATH": str(Path(vlmkit.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["preprocess/policies", "encoders", "connectors", "layout", "fusion"])
def test_it_names_every_built_in_part(folder: str) -> None:
    headings = (pages.ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8").splitlines()
    files = [file for file in (pages.ROOT / "vlmkit" / folder).glob("*.py") if f'.register("{file.stem}")' in file.read_text("utf-8")]
    assert len(files) >= 5
    for file in files:
        assert f"### `{file.stem}`" in headings, f"{folder}/{file.name} is not in the catalogue: is it in {folder}/__init__.py?"
