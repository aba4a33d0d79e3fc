"""What importing costs and what it loads; that nobody's part is left out of the catalogue; that public names mean what they say."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vlmkit

ROOT = Path(vlmkit.__file__).parent
HEAVY = (
    "torch",
    "torchvision",
    "numpy",
    "PIL",
    "transformers",
    "timm",
    "open_clip",
    "tokenizers",
    "einops",
    "pyarrow",
    "scipy",
    "grain",
    "av",
)
REGISTRIES = (vlmkit.encoders, vlmkit.connectors, vlmkit.policies, vlmkit.layouts, vlmkit.fusions, vlmkit.formats)


def in_a_fresh_interpreter(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent).stdout


def test_import_vlmkit_takes_less_than_a_tenth_of_a_second() -> None:
    timed = "import time; start = time.process_time(); import vlmkit; print(time.process_time() - start)"
    assert min(float(in_a_fresh_interpreter(timed)) for _ in range(5)) < 0.1  # measured 0.02; CPU time, whatever else runs


def test_descriptions_load_nothing_heavy() -> None:
    """Whatever is built of them is imported where it is built."""
    parts = [f"{registry.__name__}.{kind}" for registry in REGISTRIES for kind in registry]
    assert len(parts) == sum(map(len, REGISTRIES)) >= 60
    modules = [
        *("vlmkit", "vlmkit.registry", "vlmkit.features", "vlmkit.spec", "vlmkit.preprocess.geometry", "vlmkit.preprocess"),
        "vlmkit.preprocess.sampling",
        "vlmkit.pointing",
        *("vlmkit.layout.base", "vlmkit.layout.template", "vlmkit.conversation", "vlmkit.architecture", "vlmkit.build", *parts),
    ]
    code = f"""
import importlib, json, sys
loaded = {{}}
for module in {modules!r}:
    importlib.import_module(module)
    loaded[module] = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps(loaded))
"""
    assert json.loads(in_a_fresh_interpreter(code)) == {module: [] for module in modules}


def test_tables_of_transformers_are_imported_where_they_are_used() -> None:
    """The files that are registered in a table are imported when it is: a file that they need and that asks for it first would be half
    there. Each of those registers itself at its end."""
    asked = {}
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "transformers":
                names = [name.name for name in node.names if re.match(r"Auto[A-Z]|[A-Z_]+_MAPPING$", name.name)]
                if names or "models.auto" in (node.module or ""):
                    asked[file.relative_to(ROOT).as_posix()] = names
    assert sorted(asked) == ["config.py", "model.py", "processor.py"]
    for module in ("vlmkit.causal_head", "vlmkit.speaking"):
        assert in_a_fresh_interpreter(f"import {module} as first, vlmkit; print(vlmkit.VLM.__name__)").strip() == "VLM"


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.family)
def test_every_file_that_registers_a_part_is_in_the_catalogue(registry: vlmkit.registry.Registry[object]) -> None:
    folder = ROOT.parent.joinpath(*registry.__name__.split("."))
    pattern = re.compile(r'^@\w+\.register\("(\w+)"\)', re.MULTILINE)
    registered = {kind: file.stem for file in folder.glob("*.py") for kind in pattern.findall(file.read_text())}
    assert {kind: kind for kind in registered} == registered, "a file is named after the kind that it registers"
    assert sorted(registered) == registry.names()
    assert {registry[kind].kind for kind in registry} == registered.keys()


def test_every_public_name_is_there_and_listed_once() -> None:
    assert sorted(vlmkit.__all__) == sorted({*vlmkit._HOMES, *vlmkit._LISTS})
    assert len(vlmkit.__all__) == len(set(vlmkit.__all__))
    for name in vlmkit.__all__:
        assert getattr(vlmkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        _ = vlmkit.biuld


def test_names_shared_with_a_file_mean_the_function_or_registry_in_any_order_of_imports() -> None:
    code = """
import sys, vlmkit.build, vlmkit.architecture, vlmkit.encoders, vlmkit.connectors.base as base
import vlmkit
from vlmkit import build
print(callable(vlmkit.build), callable(vlmkit.architecture), base is sys.modules["vlmkit.connectors.base"], vlmkit.build is build)
"""
    assert in_a_fresh_interpreter(code).split() == ["True"] * 4
    assert callable(importlib.import_module("vlmkit.build").build)
