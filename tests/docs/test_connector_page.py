"""The connector of docs/connectors.md trains in the tiny recipe, and the result answers on the command line."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pages
from PIL import Image

import vlmkit

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(vlmkit.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_recipe_trains_it_and_chat_reads_the_checkpoint(tmp_path: Path) -> None:
    page = pages.blocks(pages.ROOT / "docs" / "connectors.md")
    (source,) = (block for block in page if block.file is not None)
    (tmp_path / source.file).write_text(source.text, encoding="utf-8")
    (command,) = (line for block in page for line in pages.command_lines(block, "python"))
    script, *options = command
    # Five stages of one step each.
    run(str(pages.ROOT / script), *options, "--scale", "0.002", "--run", "trained", "--threads", "1", cwd=tmp_path)

    steps = [json.loads(line) for line in (tmp_path / "trained" / "metrics.jsonl").read_text().splitlines()]
    assert {"align", "pretrain", "sft"} <= {step.get("stage") for step in steps}
    assert json.loads((tmp_path / "trained" / "results.json").read_text())["scores"]
    kept = json.loads((tmp_path / "trained" / "checkpoint" / "config.json").read_text())
    assert kept["architecture"]["connector"] == {"kind": "my_connector", "window": 2}

    Image.fromarray(np.full((84, 112, 3), 200, dtype=np.uint8)).save(tmp_path / "photo.png")
    run("-m", "vlmkit", "chat", "trained", "photo.png", "What?", "--max-new-tokens", "2", "--plugin", source.file, cwd=tmp_path)
