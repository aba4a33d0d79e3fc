"""Frozen, typed, strictly decoded descriptions of parts, and their exact JSON.

A spec holds scalars, Literals, tuples, nested specs, mappings of names to these and `Settings` (another library's own keyword
arguments), nothing else; `Annotated[str, refuse]` is a string that `refuse(value, path)` may raise SpecError for. Types are checked when
a spec is made and when it is decoded by the same code, so a spec that exists is a spec that can be written and read back.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from vlmkit.frozen_mapping import FrozenMapping
from vlmkit.registry import Registry, suggestion

SCHEMA = 1
"""Version of the JSON form; a file of a newer one is refused."""


class SpecError(ValueError):
    """A description that does not fit: the path of the field, what it holds, what was expected."""


class Settings(Mapping[str, Any]):
    """Keyword arguments of another library, passed on untouched: a frozen, hashable JSON object.

    Settings(hidden_size=64, rope_parameters={"rope_theta": 1e4}); nested objects and lists read back as plain dicts and
    lists, copied, so that nobody can change a spec through them.
    """

    __slots__ = ("_text",)
    _text: str

    def __init__(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        try:
            text = json.dumps(dict(values or {}) | more, ensure_ascii=False, allow_nan=False, default=_refuse)
        except (TypeError, ValueError) as error:
            raise SpecError(f"settings take what JSON can hold: {error}") from None
        object.__setattr__(self, "_text", text)

    def __setattr__(self, name: str, value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete {name!r}")

    def to_dict(self) -> dict[str, Any]:
        return dict(json.loads(self._text))

    def __getitem__(self, key: str) -> Any:
        return self.to_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())

    def __or__(self, other: Mapping[str, Any]) -> Settings:
        return Settings(self.to_dict() | dict(other))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    def __reduce__(self) -> tuple[type[Settings], tuple[dict[str, Any]]]:
        return Settings, (self.to_dict(),)

    def __repr__(self) -> str:
        return f"Settings({self.to_dict()!r})"


def _refuse(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_dict()
    raise TypeError(f"{value!r} of type {type(value).__name__} is none of it")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """Base of every description. Subclasses are `@dataclass(frozen=True, kw_only=True)`."""

    kind: ClassVar[str] = ""
    """Tag of a registered part; empty for a plain record."""
    registry: ClassVar[Registry[Any] | None] = None
    """Where the parts of this family are registered; set on the family's base class."""

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came after others were written down: they are written only where they say something, so that what is older stays as it
    was."""

    def __new__(cls, **fields: Any) -> Self:
        _refuse_unknown(cls, fields, cls.kind or cls.__name__)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, hint in _fields(type(self)).items():
            object.__setattr__(self, name, _check(hint, getattr(self, name), f"{self.kind or type(self).__name__}.{name}"))

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed. Unknown fields raise SpecError."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values ready for JSON; a registered part carries its `kind`."""
        tag = {"kind": self.kind} if self.kind else {}
        said = {name: getattr(self, name) for name in _fields(type(self))}
        return tag | {name: _plain(value) for name, value in said.items() if value or name not in self.later}

    @classmethod
    def from_dict(cls, data: Any, path: str = "") -> Self:
        """The inverse of `to_dict`. Raises SpecError naming the path of what does not fit."""
        decoded: Self = _decode_spec(cls, data, path)
        return decoded

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA} | self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, path: str = "") -> Self:
        """Raises SpecError for text that is not JSON, a newer schema, or anything that does not fit."""
        try:
            data = json.loads(text, object_pairs_hook=_refuse_twins)
        except SpecError:
            raise
        except (ValueError, RecursionError) as error:
            raise SpecError(f"not JSON: {error}") from None
        if not isinstance(data, dict):
            raise SpecError(f"expected a JSON object, got {type(data).__name__}")
        schema = data.pop("schema", SCHEMA)
        if type(schema) is not int or not 1 <= schema <= SCHEMA:
            raise SpecError(f"schema: this vlmkit reads schema {SCHEMA}, the text says {schema!r}; upgrade vlmkit to read it")
        return cls.from_dict(data, path)


def _resolve_fields(cls: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


_fields: Callable[..., dict[str, Any]] = functools.cache(_resolve_fields)
"""Name and type of every field, resolved once a class."""


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Python would keep the last of two equal names and say nothing."""
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name in given:
            raise SpecError(f"{name}: given twice in one object")
        given[name] = value
    return given


def _plain(value: Any) -> Any:
    if isinstance(value, Spec | Settings):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, FrozenMapping):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _refuse_unknown(cls: type[Spec], given: Any, path: str) -> None:
    known = _fields(cls)
    for name in given:
        if name not in known:
            hint = suggestion(name, known) or f" known: {', '.join(known)}"
            raise SpecError(f"{path + '.' if path else ''}{name}: unknown field,{hint}")


def _decode_spec(cls: type[Any], data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise SpecError(f"{path or cls.__name__}: expected an object, got {data!r}")
    data = dict(data)
    if cls.registry is not None:
        if "kind" not in data:
            raise SpecError(f"{path}.kind: missing; known: {', '.join(cls.registry.names())}".lstrip("."))
        kind = data.pop("kind")
        try:
            found = cls.registry[kind]
        except (LookupError, TypeError) as error:
            own = f"a {cls.registry.family} from outside vlmkit is registered by importing its file, by vlmkit.load_plugin or by --plugin"
            raise SpecError(f"{path}.kind: {error}; {own}".lstrip(".")) from None
        if not issubclass(found, cls):
            raise SpecError(f"{path}.kind: expected {cls.kind!r}, got {kind!r}".lstrip("."))
        cls = found
    fields = _fields(cls)
    _refuse_unknown(cls, data, path)
    required = {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - data.keys()):
        raise SpecError(f"{path + '.' if path else ''}{missing[0]}: missing")
    values = {name: _check(fields[name], value, f"{path + '.' if path else ''}{name}", decode=True) for name, value in data.items()}
    try:
        return cls(**values)
    except SpecError as error:
        raise SpecError(f"{path}: {error}" if path else str(error)) from None


def _check(hint: Any, value: Any, path: str, *, decode: bool = False) -> Any:
    """The value as the hint wants it, or SpecError. With `decode`, JSON lists become tuples and objects become specs."""
    origin = get_origin(hint)
    if origin is Annotated:
        plain, *refusals = get_args(hint)
        value = _check(plain, value, path, decode=decode)
        for refuse in refusals:
            refuse(value, path)
        return value
    if origin is Literal:
        if not any(type(value) is type(choice) and value == choice for choice in get_args(hint)):
            choices = ", ".join(repr(choice) for choice in get_args(hint))
            raise SpecError(f"{path}: expected one of {choices}, got {value!r}")
        return value
    if origin in (Union, types.UnionType):
        return _check_union(hint, value, path, decode)
    if origin is tuple:
        return _check_tuple(hint, value, path, decode)
    if origin is Mapping:
        return _check_mapping(hint, value, path, decode)
    if hint is Settings:
        if decode and isinstance(value, dict):
            return Settings(value)
        if not isinstance(value, Settings):
            raise SpecError(f"{path}: expected Settings, got {value!r}")
        return value
    if isinstance(hint, type) and issubclass(hint, Spec):
        if decode and not isinstance(value, Spec):
            return _decode_spec(hint, value, path)
        if not isinstance(value, hint):
            raise SpecError(f"{path}: expected {_name(hint)}, got {value!r}")
        return value
    if hint is float and type(value) is int and abs(value) <= sys.float_info.max:
        value = float(value)
    if type(value) is not hint:
        raise SpecError(f"{path}: expected {_name(hint)}, got {value!r}")
    if hint is float and not math.isfinite(value):
        raise SpecError(f"{path}: expected a finite number, got {value!r}")
    return value


def _check_union(hint: Any, value: Any, path: str, decode: bool) -> Any:
    choices = get_args(hint)
    if value is None and type(None) in choices:
        return None
    others = [choice for choice in choices if choice is not type(None)]
    problems = []
    for choice in others:
        try:
            return _check(choice, value, path, decode=decode)
        except SpecError as error:
            problems.append(error)
    if len(others) == 1:
        raise problems[0]
    if decode and isinstance(value, dict):
        fitting = [
            len(_fields(choice).keys() & value.keys()) if isinstance(choice, type) and issubclass(choice, Spec) else -1 for choice in others
        ]
        raise problems[fitting.index(max(fitting))]
    raise SpecError(f"{path}: expected {_name(hint)}, got {value!r}")


def _check_tuple(hint: Any, value: Any, path: str, decode: bool) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple) if decode else tuple):
        raise SpecError(f"{path}: expected {_name(hint)}, got {value!r}")
    items = get_args(hint)
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise SpecError(f"{path}: expected {len(items)} values, got {len(value)}: {value!r}")
    return tuple(
        _check(item, given, f"{path}[{index}]", decode=decode) for index, (item, given) in enumerate(zip(items, value, strict=True))
    )


def _check_mapping(hint: Any, value: Any, path: str, decode: bool) -> FrozenMapping[Any]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{path}: expected an object of names and values, got {value!r}")
    names, values = get_args(hint)
    return FrozenMapping(
        {_check(names, name, path): _check(values, item, f"{path}[{name!r}]", decode=decode) for name, item in value.items()}
    )


def _name(hint: Any) -> str:
    if isinstance(hint, type) and get_origin(hint) is None:
        registry = getattr(hint, "registry", None)
        return f"a {registry.family}" if registry is not None and not getattr(hint, "kind", "") else hint.__name__
    return str(hint).replace("typing.", "")
