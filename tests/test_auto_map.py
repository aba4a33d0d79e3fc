"""transformers' Auto classes load a directory in a process that never imported vlmkit, once they are told to trust its code."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.tiny import shared
from vlmkit.auto_map import AUTO_MAP, CODE, MODULE

SCRIPT = """
import json, os, sys
import open_clip  # slow, so loaded once
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel
directory, again = sys.argv[1:]
assert "vlmkit" not in sys.modules
told = {}
children = {
    "config": lambda: AutoConfig.from_pretrained(directory, trust_remote_code=True),
    "processor": lambda: AutoProcessor.from_pretrained(directory, trust_remote_code=True),
    "model": lambda: AutoModelForImageTextToText.from_pretrained(directory, trust_remote_code=True),
}
for name, loads in children.items():
    if os.fork():  # each in a process in which no other one was loaded before
        assert os.wait()[1] == 0, name
        continue
    loaded = loads()
    loaded.save_pretrained(again)
    assert (type(loaded).__module__, type(loaded).__name__) == {
        "config": ("vlmkit.config", "VLMConfig"), "processor": ("vlmkit.processor", "VLMProcessor"), "model": ("vlmkit.model", "VLM"),
    }[name]
    os._exit(0)
model = AutoModelForImageTextToText.from_pretrained(again, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(again, trust_remote_code=True)
print(json.dumps(model(**processor([{"role": "user", "content": "hi"}])).logits[0, -1].tolist()))
"""


def test_auto_classes_load_a_directory_that_they_are_told_to_trust(tmp_path: Path) -> None:
    model, processor = shared()
    directory, again = tmp_path / "run", tmp_path / "again"
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    assert (directory / f"{MODULE}.py").read_text() == CODE
    for file in ("config.json", "processor_config.json"):
        assert json.loads((directory / file).read_text())["auto_map"] == AUTO_MAP
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = [sys.executable, "-c", SCRIPT, str(directory), str(again)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    logits = model(**processor([{"role": "user", "content": "hi"}])).logits[0, -1].tolist()
    assert json.loads(done.stdout.splitlines()[-1]) == logits  # DeepSpeed writes to stdout when it is imported
    assert [path.name for path in again.glob("*.py")] == [f"{MODULE}.py"]  # no copies of the package's own files
    assert (again / f"{MODULE}.py").read_text() == CODE


def test_the_code_that_is_written_is_imports_of_what_auto_map_names() -> None:
    docstring, *imports, exported = ast.parse(CODE).body
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom) and node.module.startswith("vlmkit.") for node in imports)
    names = {name for node in imports if isinstance(node, ast.ImportFrom) for name in [alias.name for alias in node.names]}
    assert {f"{MODULE}.{name}" for name in names} == set(AUTO_MAP.values())
    assert isinstance(exported, ast.Assign)


def test_saving_after_a_class_was_registered_by_an_auto_map_copies_no_file(tmp_path: Path) -> None:
    model, processor = shared()
    for each in (model, processor, model.config):
        type(each).register_for_auto_class()
        each.save_pretrained(tmp_path)
        assert type(each)._auto_class is None
    assert [path.name for path in tmp_path.glob("*.py")] == [f"{MODULE}.py"]
