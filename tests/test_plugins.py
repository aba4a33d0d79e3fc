"""A stranger's part: one file, loaded by path or by name, works like vlmkit's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vlmkit
from tests.tiny import architecture
from vlmkit.plugins import PluginError

SOURCE = """
from dataclasses import dataclass, replace
from torch import nn
import vlmkit
from vlmkit.connectors.base import Connector

@vlmkit.connectors.register("{kind}")
@dataclass(frozen=True, kw_only=True)
class Mine(Connector):
    gain: float = 2.0

    def build(self, dim_in, dim_out):
        return Module(dim_in, dim_out)

class Module(nn.Module):
    def __init__(self, dim_in, dim_out):
        super().__init__()
        self.linear = nn.Linear(dim_in, dim_out)

    def forward(self, features):
        return features._replace(tokens=self.linear(features.tokens))
"""


@pytest.fixture
def forget() -> Iterator[None]:
    """Other tests walk the catalogue: it is left as it was found."""
    yield
    for kind in [kind for kind in vlmkit.connectors if kind.startswith("mine_")]:
        del vlmkit.connectors._parts[kind]


@pytest.mark.usefixtures("forget")
def test_a_part_from_a_file_is_found_built_and_written_like_vlmkits_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SOURCE.format(kind="mine_by_path"))
    module = vlmkit.load_plugin(str(file))
    assert vlmkit.load_plugin(str(tmp_path / "." / "mine.py")) is module, "a file is run once, whatever path it is named by"
    arch = architecture().replace(connector=vlmkit.connectors["mine_by_path"](gain=3.0))
    assert vlmkit.Architecture.from_json(arch.to_json()) == arch
    assert arch.parameters().connector == 32 * 32 + 32


@pytest.mark.usefixtures("forget")
def test_a_part_from_a_module_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vlmkit_test_plugin.py").write_text(SOURCE.format(kind="mine_by_name"))
    monkeypatch.syspath_prepend(tmp_path)
    vlmkit.load_plugin("vlmkit_test_plugin")
    assert "mine_by_name" in vlmkit.connectors
    del sys.modules["vlmkit_test_plugin"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.py", None, r"plugin '.*absent\.py' cannot be loaded: FileNotFoundError: there is no file .*absent\.py"),
        ("broken.py", "1 / 0", r"plugin '.*broken\.py' cannot be loaded: ZeroDivisionError: division by zero"),
        ("syntax.py", "def", r"plugin '.*syntax\.py' cannot be loaded: SyntaxError: invalid syntax"),
        ("taken.py", SOURCE.format(kind="mlp"), r"cannot be loaded: RegistryError: connector 'mlp' is already registered"),
    ],
)
@pytest.mark.usefixtures("forget")
def test_a_plugin_that_does_not_run_is_named_with_its_own_error(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    for _ in range(2):  # a failed file is not remembered as loaded
        with pytest.raises(PluginError, match=message):
            vlmkit.load_plugin(str(tmp_path / name))


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(PluginError, match=r"plugin 'no_such_module' cannot be loaded: ModuleNotFoundError"):
        vlmkit.load_plugin("no_such_module")


def test_a_part_that_is_not_loaded_is_named_in_a_file_that_uses_it_with_the_way_to_load_it() -> None:
    data = json.loads(architecture().to_json())
    data["connector"] = {"kind": "mine_unloaded", "gain": 2.0}
    with pytest.raises(vlmkit.SpecError, match=r"connector\.kind: unknown connector 'mine_unloaded'.*vlmkit\.load_plugin or by --plugin"):
        vlmkit.Architecture.from_json(json.dumps(data))
