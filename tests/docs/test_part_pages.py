"""The parts of the pages on encoders, policies, layouts and fusions train, and what they trained answers on the command line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pages
import pytest
from PIL import Image

import vlmkit

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(vlmkit.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
TRAIN = """
import sys
import torch
import vlmkit

file, family, kind = sys.argv[1:]
vlmkit.load_plugin(file)
arch = vlmkit.architecture("univa-vl-tiny").replace(**{family: kind})
model, processor = vlmkit.build(arch, seed=0).train(), vlmkit.build_processor(arch)
before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
question = {"role": "user", "content": [{"type": "image", "image": "photo.png"}, {"type": "text", "text": "What?"}]}
answer = {"role": "assistant", "content": "A cup."}
batch = processor([[question, answer], [{"role": "user", "content": "Who?"}, answer]])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
losses = []
for _ in range(4):
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
assert losses[-1] < losses[0], losses
still = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
assert still == [], still
model.save_pretrained("trained")
processor.save_pretrained("trained")
"""


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    ("page", "family", "kind"),
    [
        ("encoders.md", "encoder", "my_encoder"),
        ("policies.md", "policy", "my_policy"),
        ("layouts.md", "layout", "my_layout"),
        ("fusions.md", "fusion", "my_fusion"),
    ],
)
def test_a_part_of_a_page_trains_and_chat_reads_the_checkpoint(page: str, family: str, kind: str, tmp_path: Path) -> None:
    (source,) = (block for block in pages.blocks(pages.ROOT / "docs" / page) if block.file is not None)
    assert source.file is not None
    (tmp_path / source.file).write_text(source.text, encoding="utf-8")
    (tmp_path / "train.py").write_text(TRAIN, encoding="utf-8")
    Image.fromarray(np.full((84, 112, 3), 200, dtype=np.uint8)).save(tmp_path / "photo.png")
    run("train.py", source.file, family, kind, cwd=tmp_path)
    run("-m", "vlmkit", "chat", "trained", "photo.png", "What?", "--max-new-tokens", "2", "--plugin", source.file, cwd=tmp_path)
