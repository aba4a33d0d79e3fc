"""Every promise of docs/promises.md names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_promise_has_its_test() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    rows = [
        line
        for line in (ROOT / "docs" / "promises.md").read_text(encoding="utf-8").splitlines()
        if re.search(r"\| `tests?[/_]\S*` \|$", line)
    ]
    assert len(rows) > 15
    for row in rows:
        named = row.rsplit("`", 2)[1]
        assert (ROOT / named).exists() if "/" in named else f"def {named}(" in tests, row


def test_no_promise_is_without() -> None:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    tables = re.findall(r"\| promise \| test \|\n\|---\|---\|\n((?:\|.*\n)+)", text)
    assert len(tables) == text.count("| promise |") > 0
    for table in tables:
        assert all(re.search(r"`tests?[/_]\S*` \|$", row) for row in table.splitlines()), table
