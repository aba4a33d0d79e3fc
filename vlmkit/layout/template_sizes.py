"""How large the result of an operation of a chat template would be, reckoned from what it is given. In bytes, never far too low."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from jinja2.utils import Namespace

ENOUGH = 1 << 40
"""More than anything that is allowed."""
_MOST_VALUES, _DEEPEST = 1 << 20, 200
"""Of a value that is written, compared or hashed whole, which Python does without a look at the clock, or at how deep it is."""
_MOST_BITS = 1 << 16
"""Of a whole number: what multiplies and divides longer ones takes its time."""
_ELEMENT = 64
"""Of a list that holds new texts."""
_SHALLOW = frozenset(
    ("length", "count", "first", "last", "default", "d", "items", "map", "select", "reject", "selectattr", "rejectattr", "attr", "reverse")
)
"""Filters that look at nothing in what they are given, or at one after the other when it is asked for."""
_DIGITS = re.compile(r"\d+")


def is_long(number: Any) -> bool:
    return isinstance(number, int) and number.bit_length() > _MOST_BITS


def leaves(value: Any) -> tuple[int, int]:
    """Characters of all texts in a conversation, and how many values it holds."""
    size = count = 0
    stack = [value]
    while stack:
        one = stack.pop()
        count += 1
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, Mapping):
            stack.extend(one.values())
        elif isinstance(one, (list, tuple)):
            stack.extend(one)
    return size, count


def written(value: Any) -> int:
    """Of a value as text, also where it holds the same one many times over."""
    if isinstance(value, (str, bytes)):
        return len(value)
    size = seen = 0
    stack: list[tuple[Collection[Any], int]] = [((value,), 0)]
    while stack:
        values, depth = stack.pop()
        for one in values:
            if isinstance(one, (str, bytes)):
                size += 4 + len(one)
            elif isinstance(one, Collection):
                seen += len(one)
                stack += [(one.keys(), depth + 1), (one.values(), depth + 1)] if isinstance(one, Mapping) else [(one, depth + 1)]
            elif isinstance(one, Namespace):
                return ENOUGH  # it writes all that it holds, and no template writes it
            else:
                size += 32
            if seen > _MOST_VALUES or depth > _DEEPEST:
                return ENOUGH
    return size


def whole(*values: Any) -> int:
    """Of values that are compared or hashed; texts and numbers are so at once."""
    return sum(written(one) for one in values if not isinstance(one, (str, bytes, int, float)) and isinstance(one, Collection))


def after(value: Any) -> int:
    """Of a result that is there."""
    return sys.getsizeof(value) + (_ELEMENT - 8) * (len(value) if isinstance(value, list) else 0)


def binary(operator: str, left: Any, right: Any) -> int:
    for text, number in ((left, right), (right, left)):
        if operator == "*" and isinstance(text, (str, bytes, list, tuple)) and isinstance(number, int):
            return _length(text) * max(0, number)
    if operator == "%" and isinstance(left, (str, bytes)):
        return _percent(left, right)
    if operator == "+" and isinstance(left, (str, bytes, list, tuple)):
        return _length(left) + _length(right)
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * max(1, abs(right)) if operator == "**" and left not in (0, 1, -1) else left.bit_length()
        return ENOUGH if max(bits, right.bit_length()) > _MOST_BITS else 8
    return 64


def formatted(value: Any, spec: str) -> int:
    """Of a value in a field of str.format."""
    return written(value) + sum(_numbers(spec))


def before(name: str, value: Any, given: Sequence[Any], named: Mapping[str, Any]) -> int:
    """Of a filter of this name, or of a method of a text."""
    numbers = [abs(one) for one in (*given, *named.values()) if isinstance(one, int)]
    largest, texts = max(numbers, default=0), sum(len(one) for one in (*given, *named.values()) if isinstance(one, (str, bytes)))
    if name in _SHALLOW:
        return 64
    if name == "list" and not isinstance(value, str):
        return _ELEMENT * (len(value) if isinstance(value, Collection) else 1)
    size = written(value) + whole(*given, *named.values())
    match name:
        case "center" | "ljust" | "rjust" | "zfill":
            return size + largest
        case "batch" | "slice" | "round":
            return size + _ELEMENT * largest
        case "expandtabs" | "indent" | "tojson":
            return 6 * size + _lines(name, value) * (largest + texts)
        case "wordwrap" | "xmlattr" | "urlize":
            return 8 * size * (1 + texts)
        case "replace" if isinstance(value, (str, bytes)) and len(given) >= 2:
            old, new = given[:2]
            times = value.count(old) if isinstance(old, type(value)) else len(value)  # type: ignore[arg-type]
            return size + times * written(new)
        case "replace":
            return size * (1 + texts)
        case "join":
            return _joined(value, given, named)
        case "format" | "format_map":
            return _percent(value, given or named) if isinstance(value, str) else size
        case "translate":
            return size * max([1, *map(written, given[0].values())]) if given and isinstance(given[0], Mapping) else size
        case "split" | "rsplit" | "splitlines" | "list":
            return size + _ELEMENT * _parts(name, value, given)
        case "sum":
            return 8 * sum(_length(one) for one in value if isinstance(one, (list, tuple))) if isinstance(value, (list, tuple)) else size
        case "int" | "float":
            return ENOUGH if isinstance(value, (str, bytes)) and size > _MOST_BITS // 8 else 64
    return size


def called(name: str, given: Sequence[Any], named: Mapping[str, Any]) -> int:
    """Of a function, or a method of a value that is no text."""
    if name == "to_bytes":
        return max([abs(one) for one in (*given, *named.values()) if isinstance(one, int)], default=0)
    if name in ("from_bytes", "fromhex"):
        return ENOUGH
    if name == "strftime_now":
        return 256 * sum(map(written, (*given, *named.values())))
    if name in ("Macro", "LoopContext"):
        return 64
    return 64 + whole(*given, *named.values())


def _length(value: Any) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    return 8 * len(value) if isinstance(value, (list, tuple)) else 64


def _numbers(text: str | bytes) -> Iterable[int]:
    """Widths in a format."""
    words = text.decode("latin-1") if isinstance(text, bytes) else text
    return (int(digits[:12]) if len(digits) < 12 else ENOUGH for digits in _DIGITS.findall(words))


def _percent(text: str | bytes, values: Any) -> int:
    fields = text.count("%" if isinstance(text, str) else b"%")  # type: ignore[arg-type]
    stars = "*" in text if isinstance(text, str) else b"*" in text
    listed = values if isinstance(values, (list, tuple)) else ()
    widths = sum(abs(one) for one in listed if isinstance(one, int)) if stars else 0
    return len(text) + sum(_numbers(text)) + widths + written(values) * (1 if listed else max(1, fields))


def _joined(value: Any, given: Sequence[Any], named: Mapping[str, Any]) -> int:
    """Of a filter, whose value is what is joined, or of a method, whose value is what stands between."""
    between = next((one for one in (*given, *named.values()) if isinstance(one, str)), "")
    if isinstance(value, (str, bytes)) and given and isinstance(given[0], Collection):
        return written(given[0]) + len(value) * (1 + len(given[0]))
    return written(value) + len(between) * (len(value) if isinstance(value, Collection) else 1)


def _lines(name: str, value: Any) -> int:
    if isinstance(value, (str, bytes)):
        ends = "\t" if name == "expandtabs" else "\n"
        return 1 + value.count(ends if isinstance(value, str) else ends.encode())  # type: ignore[arg-type]
    return written(value)


def _parts(name: str, value: Any, given: Sequence[Any]) -> int:
    if not isinstance(value, (str, bytes)):
        return 0
    if name == "list" and isinstance(value, str):
        return 0 if value.isascii() else len(value)
    if given and isinstance(given[0], type(value)) and given[0]:
        return 1 + value.count(given[0])  # type: ignore[arg-type]
    words = value if isinstance(value, str) else value.decode("latin-1")
    return 1 + sum(map(words.count, " \t\n\r\v\f"))
