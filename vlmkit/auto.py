"""transformers' Auto classes know vlmkit's checkpoints after `import vlmkit`.

Registering needs transformers, which takes longer to import than vlmkit is allowed to. So the file that registers a class
is imported in the moment in which transformers loads the table that the class belongs in; at once where it is loaded already.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_TABLES = {
    "transformers.models.auto.configuration_auto": "vlmkit.config",
    "transformers.models.auto.modeling_auto": "vlmkit.model",
    "transformers.models.auto.processing_auto": "vlmkit.processor",
}
"""transformers' tables, and the file that registers a class in each."""


def register_when_transformers_loads() -> None:
    """Register with the tables that are loaded, and watch for the others."""
    for table, ours in _TABLES.items():
        if table in sys.modules:
            import_module(ours)
    if any(table not in sys.modules for table in _TABLES):
        sys.meta_path.insert(0, _Watch())


class _Watch:
    """A finder that finds the tables as the finders after it do, and lets ours follow once they are loaded."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in _TABLES:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Then(spec.loader, _TABLES[fullname])  # type: ignore[assignment]
                return spec
        return None


class _Then:
    """A loader that imports another module after the one it loads."""

    def __init__(self, loader: Loader, then: str) -> None:
        self.loader = loader
        self.then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        import_module(self.then)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)
