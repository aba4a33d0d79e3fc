"""The catalogue: one registry a family of parts (connectors, encoders, readers, ...), exact names, lazy loading."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
P = TypeVar("P")


class RegistryError(LookupError):
    """A name is unknown, or registered twice."""


class Catalogue(Generic[P]):
    """Names of one family of parts, each the `kind` tag of a class or function.

    The parts that come with vlmkit are listed by kind and loaded from the module of the same name when they are first
    asked for, so that listing names costs nothing. Anyone else registers a part by decorating it.
    """

    def __init__(self, family: str, package: str, builtin: Iterable[str] = ()) -> None:
        self.family = family
        # `import vlmkit.connectors.mlp as m` walks the attributes of vlmkit and meets a registry where it expects the
        # package: with the package's name Python finds the submodule all the same.
        self.__name__ = package
        self._builtin = tuple(builtin)
        self._parts: dict[str, P] = {}

    def register(self, kind: str) -> Callable[[P], P]:
        """Decorator: file the class or function under `kind`. Raises RegistryError where the name is taken."""

        def file(part: Any) -> Any:
            known: Any = self._parts.get(kind)
            # Running a file twice (a notebook cell, `--plugin` beside an import) redefines the same part: not a clash.
            if known is not None and (known.__module__, known.__qualname__) != (part.__module__, part.__qualname__):
                raise RegistryError(f"{self.family} {kind!r} is already registered by {known.__module__}.{known.__qualname__}")
            if known is None and kind in self._builtin and part.__module__ != self._module(kind):
                raise RegistryError(f"{self.family} {kind!r} is already registered by {self._module(kind)}")
            part.kind = kind
            self._parts[kind] = part
            return part

        return file

    def names(self, pattern: str = "*") -> list[str]:
        """Registered kinds that match a shell pattern, sorted."""
        return sorted(fnmatch.filter({*self._builtin, *self._parts}, pattern))

    def __getitem__(self, kind: str) -> P:
        if kind not in self._parts and kind in self._builtin:
            importlib.import_module(self._module(kind))
        if kind not in self._parts:
            raise RegistryError(self._unknown(kind))
        return self._parts[kind]

    def built(self, part: Any, ending: str, *arguments: Any) -> Any:
        """What `build` makes of a part in the file beside its description: with the ending "module", that in connectors/mlp_module.py of
        what connectors/mlp.py describes. So a description names nothing that is built, and reading it loads none of it.

        What derives from a part that comes with vlmkit is built as that part. Raises NotImplementedError for others, which have a
        `build` of their own.
        """
        for kind in (vars(cls).get("kind") for cls in type(part).__mro__):
            if kind in self._builtin:
                return importlib.import_module(f"{self._module(kind)}_{ending}").build(part, *arguments)
        raise NotImplementedError(f"{self.family} {type(part).__name__} has no build()")

    def __contains__(self, kind: object) -> bool:
        return kind in self._parts or kind in self._builtin

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return f"<{self.family} registry: {', '.join(self.names())}>"

    def _module(self, kind: str) -> str:
        return f"{self.__name__}.{kind}"

    def _unknown(self, kind: Any) -> str:
        return f"unknown {self.family} {kind!r};{suggestion(str(kind), self.names())} known: {', '.join(self.names())}"


class Registry(Catalogue[type[T]]):
    """A family of parts that are classes:

    @connectors.register("my_connector")
    @dataclass(frozen=True, kw_only=True)
    class MyConnector(Connector): ...
    """


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """' did you mean ...?' for the nearest known name, or nothing where none is near."""
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f" did you mean {near[0]!r}?" if near else ""
