"""Directories of makes, written and loaded once a process; `--write-published`: what the tests saw becomes docs/published.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prompts.directories import Published, read, write
from prompts.makes import MAKES, Make
from prompts.record import FILE, SEEN, merge
from prompts.record import write as write_table

import vlmkit


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Make], Published]:
    made: dict[str, Published | Exception] = {}

    def of(make: Make) -> Published:
        if make.title not in made:
            directory = tmp_path_factory.mktemp(make.name)
            write(make, directory)
            try:
                made[make.title] = Published(directory, read(make, directory), *vlmkit.load(directory))
            except vlmkit.SpecError as error:
                made[make.title] = error
        found = made[make.title]
        if isinstance(found, Exception):
            raise found
        return found

    return of


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-published", action="store_true", help=f"write {FILE.name} from the tests of makes that ran to the end")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process of xdist has ended: its cells."""
    merge(getattr(node, "workeroutput", {}).get("published", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["published"] = SEEN
    elif session.config.getoption("write_published", default=False):
        write_table([make.title for make in MAKES])
