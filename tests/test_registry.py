import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module

import pytest
from torch import nn

from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.encoders import encoders
from vlmkit.fusion import fusions
from vlmkit.layout import layouts
from vlmkit.preprocess.policies import policies
from vlmkit.registry import Registry, RegistryError, suggestion

FAMILIES = {registry.family: registry for registry in (connectors, encoders, fusions, layouts, policies)}


def pantry():
    registry = Registry("jam", package="nowhere")

    @registry.register("plum")
    class Plum:
        pass

    return registry, Plum


def test_a_part_is_found_by_its_exact_name():
    registry, plum = pantry()
    assert registry["plum"] is plum
    assert plum.kind == "plum"
    assert "plum" in registry
    assert "plu" not in registry
    with pytest.raises(RegistryError):
        registry["plu"]
    with pytest.raises(RegistryError):
        registry["Plum"]


def test_names_match_a_shell_pattern_and_are_sorted():
    registry, _ = pantry()
    registry.register("apple")(type("Apple", (), {}))
    assert registry.names() == list(registry) == ["apple", "plum"]
    assert registry.names("*um") == ["plum"]
    assert registry.names("x*") == []
    assert len(registry) == 2
    assert repr(registry) == "<jam registry: apple, plum>"


def test_a_duplicate_is_refused_and_the_first_part_stays():
    registry, plum = pantry()
    with pytest.raises(RegistryError, match=r"jam 'plum' is already registered by .*Plum"):
        registry.register("plum")(type("Greengage", (), {}))
    assert registry["plum"] is plum


def test_a_builtin_name_cannot_be_taken_before_it_is_loaded():
    code = """
from vlmkit.connectors import connectors
try:
    connectors.register("mlp")(type("Mine", (), {}))
except LookupError as error:
    print(error)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert answer == "connector 'mlp' is already registered by vlmkit.connectors.mlp"


def test_running_the_same_definition_again_replaces_it():
    """A notebook cell that is run twice."""
    registry = Registry("jam", package="nowhere")
    for _ in range(2):

        @registry.register("fig")
        class Fig:
            pass

    assert registry["fig"] is Fig


def test_a_miss_suggests_and_lists_what_is_known():
    with pytest.raises(
        RegistryError, match=r"unknown connector 'pixelshuffle'; did you mean 'pixel_shuffle'\? known: .*linear, merged_mlp, mlp"
    ):
        connectors["pixelshuffle"]
    with pytest.raises(RegistryError, match=r"unknown connector 'zzz'; known: "):
        connectors["zzz"]


def test_a_part_from_outside_works_like_one_from_inside():
    code = """
from dataclasses import dataclass
from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector

@connectors.register("mine")
@dataclass(frozen=True, kw_only=True)
class Mine(Connector):
    depth: int = 3

mine = connectors["mine"](depth=4)
print(Connector.from_json(mine.to_json()) == mine, "mine" in connectors.names())
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert answer == "True True"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_listed_part_loads_and_carries_its_name(family):
    registry = FAMILIES[family]
    assert registry.names()
    for kind in registry.names():
        assert registry[kind].kind == kind
        assert registry[kind].__module__ == f"{registry.__name__}.{kind}"


def test_what_derives_from_a_part_is_built_as_that_part_and_a_stranger_builds_itself():
    @dataclass(frozen=True, kw_only=True)
    class Wider(connectors["mlp"]):
        kind = "wider"

    module = Wider(depth=3).build(4, 8)
    assert type(module).__module__ == "vlmkit.connectors.mlp_module"
    assert sum(isinstance(layer, nn.Linear) for layer in module.modules()) == 3

    @dataclass(frozen=True, kw_only=True)
    class Nothing(Connector):
        kind = "nothing"

    with pytest.raises(NotImplementedError, match=r"connector Nothing has no build\(\)"):
        Nothing().build(4, 8)


@pytest.mark.parametrize(("registry", "ending"), [(connectors, "module"), (encoders, "tower"), (fusions, "module")])
def test_every_listed_part_has_the_file_that_builds_it_beside_its_own(registry, ending):
    own = [kind for kind in registry.names() if "build" in vars(registry[kind])]
    assert own == (["timm"] if registry is encoders else [])
    for kind in sorted({*registry.names()} - {*own}):
        assert callable(import_module(f"{registry.__name__}.{kind}_{ending}").build)


def test_listing_names_loads_nothing():
    code = """
import sys
from vlmkit.connectors import connectors
from vlmkit.encoders import encoders
from vlmkit.preprocess.policies import policies
print(len(connectors.names()) >= 4, len(policies.names()) >= 4, len(encoders.names()) >= 1)
print(sorted({"torch", "PIL", "numpy", "transformers", "timm", "open_clip"} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert answer == ["True True True", "[]"]


def test_a_suggestion_is_the_nearest_name_or_none():
    assert suggestion("dept", ["depth", "hidden"]) == " did you mean 'depth'?"
    assert suggestion("xyz", ["depth", "hidden"]) == ""
