"""A hub that does not answer is said at once, with its address."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def test_towers_do_not_ask_again_and_again(tmp_path: object) -> None:
    """By the libraries' own means each took a minute: six requests, of which the last waited for eight seconds."""
    environment = os.environ | {"HF_ENDPOINT": NOWHERE, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    program = """if True:
        import vlmkit
        vit = "vit_tiny_patch16_224"
        for kind, fields in {
            "siglip": {"checkpoint": "owner/name", "layers": 1},
            "open_clip": {"checkpoint": "hf-hub:owner/name", "layers": 1},
            "timm": {"model": vit, "checkpoint": f"{vit}.augreg_in21k_ft_in1k"},
        }.items():
            encoder = vlmkit.encoders[kind](**fields)
            try:
                encoder.load_pretrained(encoder.build())
            except OSError as error:
                print(kind, error)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    told = done.stdout.splitlines()
    assert [line.split()[0] for line in told] == ["siglip", "open_clip", "timm"], done.stderr
    assert all(NOWHERE in line and "does not answer" in line for line in told)
    assert "Retrying" not in done.stderr


def test_weights_that_are_kept_are_loaded_without_asking_under_either_of_their_names(tmp_path: Path) -> None:
    kept = tmp_path / "hub" / "models--owner--name"
    snapshot = kept / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "pytorch_model.bin").write_bytes(b"?")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0" * 40)
    environment = os.environ | {"HF_ENDPOINT": NOWHERE, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    program = """if True:
        from vlmkit.hub import refuse_unreachable
        refuse_unreachable("owner/name", ("model.safetensors", "pytorch_model.bin"))
        refuse_unreachable("owner/name", "model.safetensors")
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert f"OSError: {NOWHERE}/owner/name/resolve/main/model.safetensors does not answer" in done.stderr
    assert "line 4" in done.stderr, "the first call found the other name"
