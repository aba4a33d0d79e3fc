"""Directories of makes: written, and loaded by vlmkit, once a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from published.directories import read, write
from published.makes import Make

import vlmkit
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor


class Published(NamedTuple):
    """A directory, with what transformers and vlmkit read from it."""

    directory: Path
    reference: Any
    """transformers' processor."""
    model: VLM
    processor: VLMProcessor


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
