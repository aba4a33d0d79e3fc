"""Parts from outside the package: a file or a module that registers them when it is run."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


class PluginError(ImportError):
    """A plugin that is not there or does not run."""


def load_plugin(name: str) -> ModuleType:
    """Run a file (`my_connector.py`) or import a module (`my_package.connectors`) so that its parts are registered.

    A file is run once, whatever path it is named by. Raises PluginError with the file's own error.
    """
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        path = Path(name).resolve()
        # The name tells two files called connector.py apart, and is the same for one file every time.
        module_name = f"vlmkit_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        if module_name in sys.modules:
            return sys.modules[module_name]
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {name}")
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise ImportError("it is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
        return module
    except Exception as error:
        raise PluginError(f"plugin {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
