"""What docs/scale.py writes is current: the page by the planner's rules, and (slow) the steps that it rests on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pages
import pytest

import vlmkit

FOLDER = pages.ROOT / "docs"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(Path(vlmkit.__file__).parents[1]), str(FOLDER)))}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_the_page_is_up_to_date() -> None:
    done = run(str(FOLDER / "scale.py"), "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_steps_are_those_of_the_model() -> None:
    """A minute on the meta device. Another transformers may keep other tensors: `python docs/scale.py --trace` then."""
    done = run("-c", "import scale; assert scale.read(scale.STEPS) == scale.steps()")
    assert done.returncode == 0, done.stderr
