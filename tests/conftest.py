"""Before anything heavy is imported: no network, one thread a worker, no deadline for properties that run a model.

What a file of tests registers is gone after it: files share a process in any order.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

import vlmkit
from vlmkit import zoo

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("vlmkit", deadline=None)
settings.load_profile("vlmkit")


@pytest.fixture(autouse=True, scope="module")
def _registries_as_before() -> Iterator[None]:
    vlmkit.list_models()
    registries = [vlmkit.connectors, vlmkit.encoders, vlmkit.policies, vlmkit.layouts, vlmkit.fusions, vlmkit.formats]
    parts, models, modules = [dict(registry._parts) for registry in registries], dict(zoo._models), set(sys.modules)
    yield
    for registry, before in zip(registries, parts, strict=True):
        package = f"{registry.__name__}."
        for kind, part in list(registry._parts.items()):
            if kind not in before and not part.__module__.startswith(package):
                del registry._parts[kind]
    for name in zoo._models.keys() - models.keys():
        del zoo._models[name]
    for name in sys.modules.keys() - modules:
        if name.startswith("vlmkit_plugin_"):
            del sys.modules[name]
