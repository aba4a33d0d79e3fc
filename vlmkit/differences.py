"""In what two JSON documents differ: a configuration and another, a state and what should go on from it; and how a long list is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import eq
from typing import Any, NamedTuple


class Difference(NamedTuple):
    path: str
    """'sources.coco.weight', 'stages[align].steps'."""
    one: Any
    other: Any
    """None where it is missing."""


def differences(
    one: Any, other: Any, path: str = "", *, same: Callable[[Any, Any], bool] = eq, tag: str | None = None
) -> Iterator[Difference]:
    """Every value that two documents do not share, in the order of the first.

    Objects are compared key by key; lists of one length place by place, named by `name` where their objects have one. same: when two
    other values agree. tag: objects that differ in this key are of different kinds, and one difference as a whole.

    {"a": 1, "b": {"c": 2}} and {"a": 1, "b": {"c": 3}} differ in "b.c": 2, 3.
    """
    if isinstance(one, dict) and isinstance(other, dict) and (tag is None or one.get(tag) == other.get(tag)):
        for key in dict.fromkeys((*one, *other)):
            yield from differences(one.get(key), other.get(key), f"{path}.{key}" if path else str(key), same=same, tag=tag)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            name = mine.get("name", place) if isinstance(mine, dict) else place
            yield from differences(mine, theirs, f"{path}[{name}]", same=same, tag=tag)
    elif not same(one, other):
        yield Difference(path, one, other)


def some(keys: list[Any]) -> str:
    """The first twenty of what differs, and how many more there are."""
    shown = ", ".join(map(str, keys[:20]))
    return shown if len(keys) <= 20 else f"{shown} and {len(keys) - 20} more"
