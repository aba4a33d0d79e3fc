"""What the tests of systems saw, kept for the table in README and docs: `pytest tests/families -n0 --write-systems`."""

from __future__ import annotations

from typing import Any

from families.system import System

SEEN: dict[str, dict[str, Any]] = {}


def record(system: System, **columns: Any) -> None:
    """Cells of a system's row. A cell exists only because its test ran to the end."""
    row = SEEN.setdefault(system.title, {"tiny": system.tiny, "models": list(system.counts), "compared_with": system.compared_with})
    row |= columns
