"""What the tests of published makes saw, kept for docs/published.md: `pytest tests/prompts --write-published`.

A row is written anew with the cells of this session's tests alone; rows of makes that were not asked for stay.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prompts.makes import Make

FILE = Path(__file__).resolve().parents[2] / "docs" / "published.json"
COLUMNS = (
    *("reference", "tokenizer", "kinds", "typed", "supervised", "logits", "pixels"),
    *("greedy", "beams", "loss", "round_trip", "exports"),
)
"""Cells of a row, each by the test that found it."""

VERSIONS = {package: version(package) for package in ("torch", "transformers")}
SEEN: dict[str, dict[str, Any]] = {}


def record(make: Make, **columns: Any) -> None:
    """Cells of a make's row. A cell exists only because its test ran to the end."""
    row = SEEN.setdefault(make.title, {"versions": VERSIONS})
    row |= {name: float(f"{value:.1e}") if isinstance(value, float) else value for name, value in columns.items()}


def record_kind(make: Make, kind: str, found: str) -> None:
    """How a kind of conversation came out: "same" ids, "refused" by both, or vlmkit's "own"."""
    record(make, kinds={**SEEN.get(make.title, {}).get("kinds", {}), kind: found})


def merge(seen: Mapping[str, Mapping[str, Any]]) -> None:
    """Cells that another process saw."""
    for title, cells in seen.items():
        SEEN.setdefault(title, {}).update(cells)


def write(titles: list[str], file: Path = FILE) -> None:
    """Rows in the order of the titles: those of this session, and of the file where a make was not asked for."""
    rows = (json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}) | SEEN
    kept = {title: {name: rows[title][name] for name in ("versions", *COLUMNS) if name in rows[title]} for title in titles if title in rows}
    file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def described(tokenizer: Any) -> str:
    """What a tokenizer does with blanks and with what it does not know, in a few words."""
    if hasattr(tokenizer, "legacy"):
        return f"Llama's, `legacy: {str(tokenizer.legacy).lower()}`"
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    model, normalizer, splits = data["model"]["type"], json.dumps(data["normalizer"]), json.dumps(data["pre_tokenizer"])
    if "ByteLevel" in splits:
        blank = ", a blank before words" if '"add_prefix_space": true' in splits else ""
        return f"byte-level {model}{blank}"
    where = {"always": "before every stretch", "first": "before the first word", "never": "nowhere"}
    scheme = "always" if "Prepend" in normalizer else next((name for name in where if f'"{name}"' in splits), "never")
    return f"{model}, `▁` {where[scheme]}"
