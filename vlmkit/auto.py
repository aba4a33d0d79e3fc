"""AutoConfig, AutoModelForImageTextToText and AutoProcessor know vlmkit's checkpoints after `import vlmkit`.

Registering needs transformers, which takes longer to import than vlmkit is allowed to. So the file that registers a class
is imported in the moment in which transformers loads the table that the class belongs in; at once where it is loaded already.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

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


class _Watch(MetaPathFinder):
    """Finds the tables as Python would, and lets ours follow after they were loaded."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in _TABLES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader, _TABLES[fullname])
        return spec


class _Then(Loader):
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
