"""Mixtures of data that papers name, one file a paper: values, as named models are.

mix = vlmkit.data.mixes.mix("molmo-pixmo")
mix.weights({"caption": 712_000, "points": 1_100_000, ...})     # what the sources of a stage take
"""

from __future__ import annotations

import importlib

from vlmkit.data.mixes.values import Group as Group
from vlmkit.data.mixes.values import Ingredient as Ingredient
from vlmkit.data.mixes.values import Mix as Mix
from vlmkit.registry import RegistryError, suggestion

_FILES = ("llava", "maya", "molmo")
_own: dict[str, Mix] = {}


def list_mixes() -> list[str]:
    """Names of all mixtures, sorted."""
    return sorted(_known())


def mix(name: str) -> Mix:
    """The mixture of this name. Raises RegistryError."""
    known = _known()
    if name not in known:
        raise RegistryError(f"unknown mixture {name!r};{suggestion(name, known)} known: {', '.join(sorted(known))}")
    return known[name]


def add_mix(new: Mix) -> Mix:
    """Give a mixture of one's own a name, as a plugin does. Raises RegistryError where the name is another's."""
    if _known().get(new.name, new) != new:
        raise RegistryError(f"mixture {new.name!r} is already registered")
    _own[new.name] = new
    return new


def _known() -> dict[str, Mix]:
    files = (importlib.import_module(f"{__name__}.{file}") for file in _FILES)
    return {each.name: each for file in files for each in file.MIXES} | _own
