"""Rows of annotation files: typed access, one place where a row that cannot be used becomes a Rejected, groups by image.

def read(folder):
    def sample(row):
        return Sample((folder / row.text("file"),), (ask(row.text("question"), row.text("answer")),), folder.name, row.text("id"))

    yield from each(folder.name, json_lines(folder / "labels.jsonl"), sample)
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vlmkit.data.reading.json_stream import BrokenJson, elements
from vlmkit.data.sample import Rejected

T = TypeVar("T")

BROKEN = "annotation file is broken"
LONGEST_LINE = 1 << 26
"""Bytes of a line of JSON, 67 million."""


class Unusable(Exception):  # noqa: N818 (a state of the data)
    """Raised on the way from a row to a sample: why there is none. `each` makes a Rejected of it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """An object of an annotation file. Fields of another type than asked for raise Unusable, naming the row."""

    value: Any
    where: str
    """File and row, for messages."""
    name: str = ""
    """Its key, where the rows are an object."""

    def get(self, field: str) -> Any:
        """A field, or None."""
        if not isinstance(self.value, dict):
            raise self.wrong(f"expected an object, got {brief(self.value)}")
        return self.value.get(field)

    def text(self, field: str) -> str:
        value = self.get(field)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(f"expected a text {field!r}, got {brief(value)}")
        return value

    def key(self, field: str) -> str:
        """A text or a whole number, as text: data sets write ids as either."""
        value = self.get(field)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise self.wrong(f"expected a text or a whole number {field!r}, got {brief(value)}")
        return str(value)

    def many(self, field: str) -> list[Any]:
        value = self.get(field)
        if not isinstance(value, list):
            raise self.wrong(f"expected a list {field!r}, got {brief(value)}")
        return value

    def texts(self, field: str) -> list[str]:
        """A list of at least one text."""
        values = self.many(field)
        if not values or not all(isinstance(value, str) for value in values):
            raise self.wrong(f"expected a list of texts {field!r}, got {brief(values)}")
        return values

    def wrong(self, what: str) -> Unusable:
        return Unusable("row has wrong fields", what)


Rows = Iterator[AnnotationRow | Rejected]


def json_rows(source: str, file: Path, key: str | None = None) -> Rows:
    """The elements of a JSON document's array or object at the top or under `key`, streamed; one row is in memory."""
    number = 0
    try:
        for name, value in elements(file, key):
            number += 1
            yield AnnotationRow(value, f"{file.name}, {name}", name)
    except (BrokenJson, OSError) as error:
        yield Rejected(source, file.name, BROKEN, f"{file.name}: {number} rows were read, then: {error}")


def json_lines(source: str, file: Path) -> Rows:
    """An object a line, blank lines left out; one line is in memory."""
    try:
        with file.open("rb") as stream:
            number = 0
            while line := stream.readline(LONGEST_LINE):
                number += 1
                where = f"{file.name}, line {number}"
                if len(line) == LONGEST_LINE:
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(LONGEST_LINE)
                    yield Rejected(source, where, "row is too long", f"{where}: it has more than {LONGEST_LINE} bytes")
                elif line.strip():
                    yield _line(source, line, where)
    except OSError as error:
        yield Rejected(source, file.name, BROKEN, f"{file.name}: {error.strerror}")


def _line(source: str, line: bytes, where: str) -> AnnotationRow | Rejected:
    try:
        return AnnotationRow(json.loads(line.decode("utf-8-sig", "surrogateescape")), where)
    except (ValueError, RecursionError) as error:
        problem = getattr(error, "msg", None) or type(error).__name__
        return Rejected(source, where, "row is not JSON", f"{where}: {problem}")


def each(source: str, rows: Iterable[AnnotationRow | Rejected], make: Callable[[AnnotationRow], T]) -> Iterator[T | Rejected]:
    """What `make` makes of each row; a Rejected where it raises Unusable."""
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        try:
            yield make(row)
        except Unusable as error:
            yield Rejected(source, row.where, error.reason, f"{row.where}: {error.detail}")
        except RecursionError:
            yield Rejected(source, row.where, "row has wrong fields", f"{row.where}: its values nest too deep")


class Groups:
    """Rows by key, in the order in which the keys came, kept as bytes: about the size of what is added, 10 million short
    answers in about a gigabyte. What is added has to be JSON."""

    def __init__(self) -> None:
        self._groups: dict[str, bytearray] = {}

    def add(self, key: str, *values: Any) -> None:
        self._groups.setdefault(key, bytearray()).extend(f"{json.dumps(values)}\n".encode())

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[tuple[str, list[list[Any]]]]:
        for key, lines in self._groups.items():
            yield key, [json.loads(line) for line in lines.splitlines()]

    def pop(self, key: str) -> list[list[Any]]:
        """The rows of a key, none where it was never added; they are forgotten."""
        return [json.loads(line) for line in self._groups.pop(key, b"").splitlines()]


def brief(value: Any) -> str:
    """A value in a message: short, however long or deep it is."""
    return reprlib.repr(value)
