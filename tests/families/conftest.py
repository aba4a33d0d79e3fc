"""`--write-systems`: what the tests of systems saw becomes docs/systems.json, also where several processes saw it."""

from __future__ import annotations

from typing import Any

import pytest
from families.record import FILE, SEEN, merge, write


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-systems", action="store_true", help=f"write {FILE.name} from the tests of systems that ran to the end")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process of xdist has ended: its cells."""
    merge(getattr(node, "workeroutput", {}).get("systems", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["systems"] = SEEN
    elif session.config.getoption("write_systems", default=False):
        from families.registered import BY_PARTS, SYSTEMS

        write([system.title for system in (*SYSTEMS, *BY_PARTS)])
