"""What stands in a structure in Thrift's compact form, which parquet files are described in: numbers and names that are asked for.

    fields(data, 0, {2: [{4: KEEP}], 3: KEEP})      # {2: [{4: b"schema"}, ...], 3: 5}, and where the structure ends

Whatever else stands there is passed over. Nothing is believed: a length that points outside, or nesting without end, is a ValueError.
"""

from __future__ import annotations

from typing import Any

KEEP = None
"""A number, a flag or bytes; in a list of KEEP, each of them."""
Wanted = dict[int, Any]
"""Numbers of fields -> KEEP, Wanted for a structure, [Wanted] or [KEEP] for a list."""
MOST = 1_000_000
"""Values of one structure with all inside."""
DEEPEST = 32

_TRUE, _FALSE, _BYTE, _SHORT, _INT, _LONG, _DOUBLE, _BYTES, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


class CutShort(ValueError):  # noqa: N818 (a state of the data)
    """The data ends within the structure."""


def fields(data: bytes, at: int, wanted: Wanted) -> tuple[dict[int, Any], int]:
    """What is wanted of the structure at a place, and the place behind it. Raises ValueError."""
    reader = _Reader(data, at)
    return reader.struct(wanted, 0), reader.at


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.left = MOST

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise CutShort("a structure is cut short")
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        value = self.byte()
        if value < 0x80:
            return value
        value &= 0x7F
        for shift in range(7, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number does not end")

    def signed(self) -> int:
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def struct(self, wanted: Wanted, depth: int) -> dict[int, Any]:
        found: dict[int, Any] = {}
        name = 0
        while head := self.byte():
            kind = head & 15
            name = name + (head >> 4) if head >> 4 else self.signed()
            if name in wanted:
                found[name] = self.value(kind, wanted[name], depth)
            else:
                self.skip(kind, depth)
        return found

    def value(self, kind: int, wanted: Any, depth: int) -> Any:
        self.count(depth)
        if kind in (_TRUE, _FALSE) and wanted is KEEP:
            return kind == _TRUE
        if kind in (_SHORT, _INT, _LONG) and wanted is KEEP:
            return self.signed()
        if kind == _BYTES and wanted is KEEP:
            length = self.number()
            return self.data[self.forward(length) : self.at]
        if kind == _STRUCT and isinstance(wanted, dict):
            return self.struct(wanted, depth + 1)
        if kind in (_LIST, _SET) and isinstance(wanted, list):
            inner, length = self.list_head()
            return [self.value(inner, wanted[0], depth + 1) for _ in range(length)]
        raise ValueError("a field is of another kind than parquet has it")

    def skip(self, kind: int, depth: int) -> None:
        self.count(depth)
        if kind in (_SHORT, _INT, _LONG):
            self.number()
        elif kind == _BYTE:
            self.forward(1)
        elif kind == _DOUBLE:
            self.forward(8)
        elif kind == _BYTES:
            self.forward(self.number())
        elif kind == _STRUCT:
            self.struct({}, depth + 1)
        elif kind in (_LIST, _SET):
            inner, length = self.list_head()
            for _ in range(length):
                self.item(inner, depth + 1)
        elif kind == _MAP:
            length = self.number()
            kinds = self.byte() if length else 0
            for _ in range(length):
                self.item(kinds >> 4, depth + 1)
                self.item(kinds & 15, depth + 1)
        elif kind not in (_TRUE, _FALSE):
            raise ValueError(f"a field is of kind {kind}, which Thrift has not")

    def item(self, kind: int, depth: int) -> None:
        """Over an element of a list, where flags take a byte."""
        if kind in (_TRUE, _FALSE):
            self.forward(1)
        self.skip(kind, depth)

    def list_head(self) -> tuple[int, int]:
        head = self.byte()
        return head & 15, self.number() if head >> 4 == 15 else head >> 4

    def forward(self, length: int) -> int:
        """Over so many bytes; where they begin."""
        start = self.at
        if length > len(self.data) - start:
            raise CutShort("a structure is cut short")
        self.at += length
        return start

    def count(self, depth: int) -> None:
        self.left -= 1
        if self.left < 0 or depth > DEEPEST:
            raise ValueError(f"a structure has more than {MOST} values, or nests deeper than {DEEPEST}")
