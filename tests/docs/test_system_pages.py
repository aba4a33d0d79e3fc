"""The table of systems, the page of each family, and what is stated of licences."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pages
import pytest
from families.record import COLUMNS, FILE, SEEN, merge, record, write
from families.registered import BY_PARTS, SYSTEMS
from families.system import System

import vlmkit
from vlmkit import zoo
from vlmkit.checkpoints import FAMILIES, IN_GGUF, MODELS, WITH_CODE

ROWS: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
FOLDER = pages.ROOT / "docs" / "systems"
MODELS_OF = {file: MODELS.get(file, (file,)) for file in (FAMILIES | WITH_CODE | IN_GGUF).values()}


def published() -> list[str]:
    """Named models that are not tiny ones for tests and laptops."""
    return [name for name in vlmkit.list_models() if not name.endswith("-tiny")]


UNPUBLISHED = {"univa-vl"}
"""Named models without code or weights that they could be compared with."""


ROW_OF = {system.title: system for system in (*SYSTEMS, *BY_PARTS)}


@pytest.mark.parametrize("system", ROW_OF.values(), ids=lambda system: system.tiny)
def test_every_system_has_its_row(system: System) -> None:
    command = f"pytest tests/families -k {system.tiny} --write-systems && python docs/generate.py"
    assert system.title in ROWS, f"docs/systems.json has no row of {system.title}; write it with: {command}"


def test_every_published_model_belongs_to_a_system() -> None:
    listed = [name for system in ROW_OF.values() for name in system.counts]
    assert len(listed) == len(set(listed))
    assert set(published()) == {*listed, *UNPUBLISHED}


@pytest.mark.parametrize("title", ROWS)
def test_a_row_is_of_a_registered_system_and_says_what_its_tests_saw(title: str) -> None:
    row = ROWS[title]
    system = ROW_OF[title]
    assert row["tiny"] == system.tiny
    assert row["compared_with"] == system.compared_with
    assert list(row["parameters"]) == row["models"] == list(system.counts)
    assert row["builds"] == len(row["models"])
    missing = [column for column in COLUMNS if column not in row]
    assert not missing or system.compared_with, f"{title} has no {', '.join(missing)} and does not say why"
    assert row.get("logits", 0) <= system.logits_within
    assert row.get("pixels", 0) <= 2.01


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_a_family_has_its_page_its_diagram_and_its_photograph(family: str) -> None:
    text = (FOLDER / f"{family}.md").read_text(encoding="utf-8")
    assert f"({family}.svg)" in text
    assert f"({family}.jpg)" in text
    for heading in ("Parts", "The way of an image", "How a photograph is cut", "Visual tokens", "Parameters", "Licence of the weights"):
        assert f"\n## {heading}\n" in text
    assert (FOLDER / f"{family}.svg").is_file()
    assert (FOLDER / f"{family}.jpg").stat().st_size <= 60_000


def test_what_smolvlms_processor_needs_is_an_extra_that_its_page_names() -> None:
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert any(need.startswith("num2words") for need in project["optional-dependencies"]["smolvlm"])
    assert "pip install 'vlmkit[smolvlm]'" in (FOLDER / "smolvlm.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", MODELS_OF)
def test_the_pages_of_a_class_say_that_it_is_read_and_written(file: str) -> None:
    for family in MODELS_OF[file]:
        text = (FOLDER / f"{family}.md").read_text(encoding="utf-8")
        assert "\n## Load and export\n" in text


def test_licences_are_of_named_models_and_say_where_they_were_read() -> None:
    known = json.loads((pages.ROOT / "docs" / "licences.json").read_text(encoding="utf-8"))
    assert known.keys() <= set(published())
    assert list(known) == sorted(known)
    assert all(entry.keys() == {"weights", "licence", "source"} and entry["licence"] and entry["source"] for entry in known.values())


@pytest.fixture
def no_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    for title in list(SEEN):
        monkeypatch.delitem(SEEN, title)


@pytest.mark.usefixtures("no_cells")
def test_rows_of_this_session_replace_whole_rows_and_others_stay(tmp_path: Path) -> None:
    first, second, third = SYSTEMS[:3]
    file = tmp_path / "systems.json"
    record(first, logits=1.26e-7, generates=True)
    record(second, logits=0.0)
    titles = [third.title, first.title, second.title]
    write(titles, file)
    assert list(json.loads(file.read_text())) == [first.title, second.title]
    SEEN.clear()
    record(second, generates=True)
    merge({second.title: {"pixels": 0.5}, "gone": {"pixels": 1.0}})
    write(titles, file)
    rows = json.loads(file.read_text())
    assert rows[first.title]["logits"] == 1.3e-7
    assert rows[second.title]["models"] == list(second.counts)
    assert [column for column in COLUMNS if column in rows[second.title]] == ["pixels", "generates"], "no cell of another session is left"
    assert list(rows) == [first.title, second.title]
