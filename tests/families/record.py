"""What the tests of systems saw, kept for the table in README and docs: `pytest tests/families --write-systems`.

A row is written anew with the cells of this session's tests alone; rows of systems that were not asked for stay.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from families.system import System

FILE = Path(__file__).resolve().parents[2] / "docs" / "systems.json"
COLUMNS = ("builds", "parameters", "reference", "logits", "pixels", "layout", "loads", "exports", "generates", "trains")
"""Cells of a row, each by the test that found it."""

SEEN: dict[str, dict[str, Any]] = {}


def record(system: System, **columns: Any) -> None:
    """Cells of a system's row. A cell exists only because its test ran to the end; a difference is the largest of several tests'."""
    row = SEEN.setdefault(
        system.title,
        {
            "tiny": system.tiny,
            "models": list(system.counts),
            "compared_with": system.compared_with,
            "versions": {package: version(package) for package in ("torch", "transformers")},
        },
    )
    _put(row, {name: float(f"{value:.1e}") if isinstance(value, float) else value for name, value in columns.items()})


def merge(seen: Mapping[str, Mapping[str, Any]]) -> None:
    """Cells that another process saw."""
    for title, cells in seen.items():
        _put(SEEN.setdefault(title, {}), cells)


def _put(row: dict[str, Any], cells: Mapping[str, Any]) -> None:
    row |= {name: max(value, row.get(name, value)) if isinstance(value, float) else value for name, value in cells.items()}


def write(titles: list[str], file: Path = FILE) -> None:
    """Rows in the order of the titles: those of this session, and of the file where a system was not asked for."""
    rows = (json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}) | SEEN
    order = ("tiny", "models", "compared_with", "versions", *COLUMNS)
    kept = {title: {name: rows[title][name] for name in order if name in rows[title]} for title in titles if title in rows}
    file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
