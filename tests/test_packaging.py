"""What is shipped: the wheel holds vlmkit and nothing else, works away from the checkout, and asks for all that it imports."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

import vlmkit

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def build(target: str, directory: Path) -> Path:
    """Run the build backend as pip does, without a network or another environment."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_vlmkit_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"vlmkit-{vlmkit.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"vlmkit", info}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "vlmkit").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    assert {"vlmkit/py.typed", f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= names


def test_the_source_distribution_holds_what_is_needed_to_work_on_it(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "mkdocs.yml", "docs/index.md", "vlmkit/py.typed", "PKG-INFO"}
    assert wanted <= names
    known = {"vlmkit", "recipes", "benchmarks", "tests", "docs"} | {name for name in wanted if "/" not in name} | {".gitignore"}
    assert {name.partition("/")[0] for name in names} <= known


BUILD_ALL = """
import sys, vlmkit
assert vlmkit.__file__.startswith(sys.argv[1]), vlmkit.__file__
for name in vlmkit.list_models():
    assert vlmkit.build(name, device="meta").config.spec.name == name
print(len(vlmkit.list_models()), *(len(kinds()) for kinds in (
    vlmkit.list_policies, vlmkit.list_encoders, vlmkit.list_connectors, vlmkit.list_layouts, vlmkit.list_fusions)))
"""


def test_an_installed_wheel_builds_every_named_model(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, run elsewhere; the counts are those of the sources, so that no file was left behind."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BUILD_ALL, str(site)],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    models, *kinds = map(int, done.stdout.split())
    assert models >= len(list((ROOT / "vlmkit" / "zoo").glob("[!_]*.py")))
    for count, folder in zip(kinds, ("preprocess/policies", "encoders", "connectors", "layout", "fusion"), strict=True):
        files = (ROOT / "vlmkit" / folder).glob("*.py")
        assert count == sum(f'.register("{file.stem}")' in file.read_text(encoding="utf-8") for file in files), folder


def distribution(requirement: str) -> str:
    """'Open_CLIP.torch>=3' -> 'open-clip-torch'"""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def imported(folder: Path) -> Iterator[tuple[Path, str, bool]]:
    """File, top-level module, and whether it is imported as soon as the file is: not in a function, under `if` or `try`."""
    for file in sorted(folder.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                yield file, name.partition(".")[0], node in tree.body


@pytest.mark.parametrize("folder", ["vlmkit", "recipes"])
def test_everything_imported_is_asked_for(folder: str) -> None:
    """By the dependencies; where an import waits until it is needed, by an extra."""
    base = {distribution(requirement) for requirement in PROJECT["dependencies"]}
    extras = PROJECT["optional-dependencies"]
    late = ("train", "qlora", "liger", "data", "eval", "lmms", "video", "serve", "flash", "heic", "gguf")
    optional = {distribution(requirement) for extra in late for requirement in extras[extra]}
    homes = packages_distributions()
    # Files of a recipe import each other by their bare names.
    own = {"vlmkit"} if folder == "vlmkit" else {"vlmkit", *(path.stem for path in (ROOT / folder).rglob("*.py"))}
    seen = 0
    for file, module, at_once in imported(ROOT / folder):
        if module in sys.stdlib_module_names or module in own:
            continue
        seen += 1
        found = {distribution(name) for name in homes.get(module, [module])}
        assert found & (base if at_once else base | optional), (
            f"{file.relative_to(ROOT)} imports {module}, which pyproject.toml does not ask for"
        )
    assert seen


def test_what_is_asked_for_is_stated_once_and_truly() -> None:
    assert PROJECT["version"] == vlmkit.__version__
    extras = PROJECT["optional-dependencies"]
    # flash-attn compiles against CUDA where no wheel fits: nothing else may pull it in.
    assert [name for name, needs in extras.items() if any(distribution(need) == "flash-attn" for need in needs)] == ["flash"]
    # Addresses that lead nowhere are worse than none.
    assert "urls" not in PROJECT


def test_the_two_commands_of_the_readme_are_those_that_are_checked() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\npip install -e . && python recipes/univa/train.py\n" in readme
    assert "\npip install -e '.[test]' && pytest\n" in readme
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^quiet \S+ pip install -e '\.\[test\]'$", checks, re.MULTILINE)
    assert re.search(r"^pytest(?: 2>&1 \| tee \S+)?$", checks, re.MULTILINE)
