"""`--write-systems`: what the tests of systems saw becomes docs/systems.json, also where several processes saw it. Directories of
LLaVA's own layout, written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from families import llava_upstream
from families.record import FILE, SEEN, merge, write

import vlmkit


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


@pytest.fixture(scope="session")
def llava_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a case of llava_upstream.py; nobody writes to it."""
    made: dict[str, Path] = {}

    def of(case: str) -> Path:
        if case not in made:
            made[case] = llava_upstream.write(tmp_path_factory.mktemp(case), case)
        return made[case]

    return of


@pytest.fixture(scope="session")
def llava_loaded(llava_directory: Callable[[str], Path]) -> Callable[[str], Any]:
    """Model and processor of it."""
    made: dict[str, Any] = {}

    def of(case: str) -> Any:
        if case not in made:
            made[case] = vlmkit.load(llava_directory(case))
        return made[case]

    return of
