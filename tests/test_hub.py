"""A hub that does not answer is said at once, with its address."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NOWHERE = "http://127.0.0.1:9"
"""Where nobody listens."""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "vlmkit.LanguageModel.from_pretrained('owner/name')",
            "language model 'owner/name' is no directory here",
        ),
        ("vlmkit.build_processor('llava-1.5-7b')", "cannot be loaded"),
    ],
)
def test_it_is_asked_once_and_not_for_half_a_minute(code: str, said: str, tmp_path: object) -> None:
    environment = os.environ | {"HF_ENDPOINT": NOWHERE, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    program = f"import vlmkit\ntry:\n    {code}\nexcept vlmkit.SpecError as error:\n    print(error)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert said in done.stdout, done.stderr
    assert f"{NOWHERE}/" in done.stdout
    assert "does not answer" in done.stdout
    assert "Retrying" not in done.stderr
