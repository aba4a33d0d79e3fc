"""Parts as they are written in one word: 'mlp', or 'mlp:depth=3,bias=false'. Command lines and `Architecture.replace` read them alike."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from vlmkit.spec import Spec, SpecError

S = TypeVar("S", bound=Spec)


def read_part(base: type[S], text: str, path: str) -> S:
    """'mlp', 'mlp:depth=3' or '{"kind": "mlp", "depth": 3}' -> the part of the base's registry. Errors name `path`.

    Raises RegistryError for an unknown kind, SpecError for fields that do not fit or are missing.
    """
    if is_json(text):
        return base.from_json(text, path)
    registry = base.registry
    assert registry is not None
    kind, given = read_fields(text)
    part: type[S] = registry[kind]
    required = (field.name for field in fields(part) if field.default is MISSING and field.default_factory is MISSING)
    missing = [name for name in required if name not in given]
    if missing:
        raise SpecError(
            f"{path}.{missing[0]}: missing; {registry.family} {kind!r} has no default for {', '.join(missing)}; pass the spec instead of "
            f"its name, or write '{kind}:{missing[0]}=...'"
        )
    return part.from_dict({"kind": kind} | given, path)


def read_fields(text: str) -> tuple[str, dict[str, Any]]:
    """'mlp:depth=3' -> ('mlp', {'depth': 3}). Values are JSON where they can be, text where not.

    Raises SpecError for what follows the colon and is no FIELD=VALUE.
    """
    kind, _, rest = text.partition(":")
    found: dict[str, Any] = {}
    for assignment in re.split(r",(?=\s*\w+\s*=)", rest) if rest else []:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise SpecError(f"expected FIELD=VALUE after the colon, got {assignment!r}")
        found[name.strip()] = _value(value.strip())
    return kind, found


def is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
