"""Rows of annotation files: typed access, one place where a row that cannot be used becomes a Rejected, groups by image.

def read(folder):
    def sample(row):
        return Sample((folder / row.text("file"),), (ask(row.text("question"), row.text("answer")),), folder.name, row.text("id"))

    yield from each(folder.name, json_lines(folder / "labels.jsonl"), sample)
"""

from __future__ import annotations

import codecs
import json
import reprlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from vlmkit.data.reading.json_stream import BrokenJson, elements
from vlmkit.data.reading.large_json import CHUNK, TooLarge, from_pieces
from vlmkit.data.sample import LONGEST_ID, LONGEST_TEXT, Rejected

T = TypeVar("T")

BROKEN = "annotation file is broken"
TOO_LARGE = "row is too large"
MAX_GROUP = 1 << 21
"""Bytes of texts about one image behind which no more are taken."""
_FARTHEST = 1 << 30
"""Bytes after which a line without an end is a broken file."""


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
        """Of at most LONGEST_TEXT characters."""
        value = self.get(field)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(f"expected a text {field!r}, got {brief(value)}")
        check_length(value)
        return value

    def key(self, field: str) -> str:
        """A text or a whole number, as text: data sets write ids as either. Of at most LONGEST_ID characters."""
        value = self.get(field)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise self.wrong(f"expected a text or a whole number {field!r}, got {brief(value)}")
        key = str(value)
        if len(key) > LONGEST_ID:
            raise self.wrong(f"expected at most {LONGEST_ID} characters of {field!r}, got {len(key)}")
        return key

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
        for value in values:
            check_length(value)
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
            where = f"{file.name}, {name if len(name) <= LONGEST_ID else brief(name)}"
            if isinstance(value, TooLarge):
                yield Rejected(source, where, TOO_LARGE, f"{where}: it has {value}")
            elif len(name) > LONGEST_ID:
                yield Rejected(source, where, "row has wrong fields", f"{where}: a key of {len(name)} characters")
            else:
                yield AnnotationRow(value, where, name)
    except (BrokenJson, OSError) as error:
        yield Rejected(source, file.name, BROKEN, f"{file.name}: {number} rows were read, then: {error}")


def json_lines(source: str, file: Path) -> Rows:
    """An object a line, blank lines left out; one line is in memory."""
    try:
        with file.open("rb") as stream:
            number = 0
            while line := stream.readline(CHUNK):
                number += 1
                where = f"{file.name}, line {number}"
                try:
                    yield AnnotationRow(from_bytes(line) if _is_whole(line) else _large_line(stream, line), where)
                except EOFError:
                    continue
                except TooLarge as error:
                    yield Rejected(source, where, TOO_LARGE, f"{where}: it has {error}")
                except (ValueError, RecursionError) as error:
                    problem = getattr(error, "msg", None) or type(error).__name__
                    yield Rejected(source, where, "row is not JSON", f"{where}: {problem}")
    except OSError as error:
        yield Rejected(source, file.name, BROKEN, f"{file.name}: {error.strerror or error}")


def from_bytes(data: bytes) -> Any:
    """The value of a JSON document. Raises TooLarge, EOFError for blanks alone, and what json.loads raises."""
    if len(data) > CHUNK:
        return from_pieces(_decoded(data[at : at + CHUNK] for at in range(0, len(data), CHUNK)))
    if not data.strip():
        raise EOFError
    return json.loads(data.decode("utf-8-sig", "surrogateescape"))


def _is_whole(line: bytes) -> bool:
    return len(line) < CHUNK or line.endswith(b"\n")


def _large_line(stream: BinaryIO, begun: bytes) -> Any:
    """What a line of any length holds, read to its end whatever it is. Raises OSError where it has none."""
    pieces = _rest_of_line(stream, begun)
    try:
        return from_pieces(_decoded(pieces))
    finally:
        for _ in pieces:
            pass


def _rest_of_line(stream: BinaryIO, piece: bytes) -> Iterator[bytes]:
    length = 0
    while piece:
        yield piece
        length += len(piece)
        if length > _FARTHEST:
            raise OSError(f"a line has more than {_FARTHEST} bytes")
        piece = b"" if _is_whole(piece) else stream.readline(CHUNK)


def _decoded(pieces: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    for piece in pieces:
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)


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


def check_length(text: str) -> None:
    """Raises Unusable for a text that no conversation can hold."""
    if len(text) > LONGEST_TEXT:
        raise Unusable("text is too long", f"it has {len(text)} characters, allowed are {LONGEST_TEXT}")


class Groups:
    """Rows by key, in the order in which the keys came, kept as bytes: about the size of what is added, 10 million short
    answers in about a gigabyte. What is added has to be JSON. Raises Unusable for what is too much for one sample."""

    def __init__(self) -> None:
        self._groups: dict[str, bytearray] = {}

    def add(self, key: str, *values: Any) -> None:
        if len(key) > LONGEST_ID:
            raise Unusable("row has wrong fields", f"its image has a name of {len(key)} characters, expected at most {LONGEST_ID}")
        group = self._groups.setdefault(key, bytearray())
        if len(group) > MAX_GROUP:
            raise Unusable("sample is too large", f"image {brief(key)} has more than {MAX_GROUP} bytes of texts before this one")
        group.extend(f"{json.dumps(values)}\n".encode())

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
