"""A config that states a larger model than its files hold: refused with the weight and both shapes, before anything is made. And whole
numbers in the place of weights, whatever they are stored in."""

from __future__ import annotations

import ast
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import llava_upstream, moe_llava_directory, prismatic, qwen_vl
from families.registered import SYSTEMS
from safetensors.torch import load_file, save_file

import vlmkit
from tests.memory import peak_memory
from tests.tiny import shared
from vlmkit.checkpoint_directory import CheckpointError
from vlmkit.checkpoints import FAMILIES, WITH_CODE, export
from vlmkit.spec import SpecError

ROOT = Path(vlmkit.__file__).parent
SYSTEM_OF = {
    "aria": "aria-tiny",
    "fuyu": "fuyu-tiny",
    "idefics": "idefics-tiny",
    "idefics2": "idefics2-tiny",
    "idefics3": "idefics3-tiny",
    "janus": "janus-tiny",
    "llava": "llava-1.5-tiny",
    "llava_next": "llava-1.6-tiny",
    "mistral3": "mistral3-tiny",
    "mllama": "llama-3.2-vision-tiny",
    "paligemma": "paligemma-tiny",
    "qwen2_vl": "qwen2-vl-tiny",
    "smolvlm": "smolvlm-tiny",
    "video_llama_3": "videollama3-tiny",
}
LLAVA = {"llava_llama": "llava_next", "llava_mistral": "llava_mistral"}
"""LLaVA's own types -> a case whose files hold the tower."""
EVERY = sorted([*FAMILIES, *WITH_CODE, "vlmkit"])
every_family = pytest.mark.parametrize("family", EVERY)


def write(family: str, directory: Path) -> None:
    """A tiny directory of a family, as its own class writes it."""
    if family in SYSTEM_OF:
        next(system for system in SYSTEMS if system.tiny == SYSTEM_OF[family]).reference().save(directory)
    elif family == "vlmkit":
        for each in shared():
            each.save_pretrained(directory)
    elif family == "qwen":
        save_file(qwen_vl.weights(), qwen_vl.write(directory) / "model.safetensors")
    elif family == "prismatic":
        save_file(prismatic.weights("single"), prismatic.write(directory, "single") / "model.safetensors")
    elif family == "moe_llava_phi":
        moe_llava_directory.write(directory)
    elif family in LLAVA:
        llava_upstream.write(directory, LLAVA[family])
    else:
        name = {"NVLM_D": "nvlm-d-tiny", "molmo": "molmo-tiny"}[family]
        export(vlmkit.build(name, seed=0), vlmkit.build_processor(name), directory)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            write(family, made[family])
            vlmkit.load(made[family])
        return made[family]

    return of


def numbers(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a config states whole numbers."""
    for name, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if isinstance(each, int) and not isinstance(each, bool):
            yield (*at, name)
        yield from numbers(each, (*at, name))


def refused(sound: Path, place: Path, at: tuple[Any, ...], number: int) -> str | None:
    """What is said of a directory whose config states this number there; None where it loads. Little time and memory in any case."""
    shutil.copytree(sound, place)
    config = json.loads((sound / "config.json").read_text())
    within = config
    for name in at[:-1]:
        within = within[name]
    within[at[-1]] = number
    (place / "config.json").write_text(json.dumps(config))
    begun, said = time.process_time(), None
    with peak_memory() as grown:
        try:
            vlmkit.load(place)
        except (CheckpointError, SpecError) as error:
            said = str(error)
    where = ".".join(map(str, at))
    assert time.process_time() - begun < 5, where
    assert grown() < 300 << 20, where
    assert said is None or (str(place) in said and "\n" not in said and "Error" not in said), (where, said)
    shutil.rmtree(place)
    return said


@every_family
def test_larger_layers_than_the_files_hold_are_refused_with_both_shapes(
    family: str, published: Callable[[str], Path], tmp_path: Path
) -> None:
    sound = published(family)
    config = json.loads((sound / "config.json").read_text())
    larger = [at for at in numbers(config) if at[-1] in ("vocab_size", "intermediate_size", "mlp", "ffn_hidden_size")]
    said = [refused(sound, tmp_path / "larger", at, 40_000_000) for at in larger]
    assert any(said)  # a number that a family does not read may say what it likes
    for each in filter(None, said):
        assert re.search(r"\.weight (is )?\(.*\), expected \(.*(40|20)000000", each), each


@pytest.mark.fuzz
@every_family
def test_every_number_of_a_config_at_its_extremes_costs_little(family: str, published: Callable[[str], Path], tmp_path: Path) -> None:
    sound = published(family)
    for at in numbers(json.loads((sound / "config.json").read_text())):
        for number in (10**6, 10**9):
            refused(sound, tmp_path / "larger", at, number)


def test_every_reader_of_a_model_compares_first() -> None:
    """`from_pretrained` of a model makes what files do not hold: only read_model calls it."""
    calls = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained":
                of = ast.unparse(node.func.value)
                if not of.startswith(("Auto", "VLMConfig", "VLMProcessor", "PeftConfig", "LanguageModel", "super()")):
                    calls.append(f"{path.relative_to(ROOT)}: {ast.unparse(node.func)}")
    assert sorted(calls) == ["checkpoint_weights.py: cls.config_class.from_pretrained", "checkpoint_weights.py: cls.from_pretrained"]


def pickled(directory: Path, weights: dict[str, torch.Tensor]) -> None:
    (directory / "model.safetensors").unlink()
    torch.save(weights, directory / "pytorch_model.bin")


def as_safetensors(directory: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("stored", [pickled, as_safetensors])
@pytest.mark.parametrize("family", [family for family in EVERY if family != "molmo"])
def test_whole_numbers_are_no_weights_in_any_file(
    family: str, stored: Callable[[Path, dict[str, torch.Tensor]], None], published: Callable[[str], Path], tmp_path: Path
) -> None:
    """Of Molmo vlmkit reads safetensors alone."""
    place = tmp_path / "whole"
    shutil.copytree(published(family), place)
    for file in place.glob("*.safetensors.index.json"):
        file.unlink()
    weights = {name: value for file in place.glob("*.safetensors") for name, value in load_file(file).items()}
    stored(place, weights)
    vlmkit.load(place)
    name = next(name for name in weights if name.endswith(("norm.weight", "ln_f.weight")))
    if (place / "pytorch_model.bin").exists():
        as_safetensors(place, weights)
    stored(place, weights | {name: torch.ones_like(weights[name], dtype=torch.int32)})
    with pytest.raises((CheckpointError, SpecError), match=r"whole numbers") as error:
        vlmkit.load(place)
    assert name.rpartition(".")[2] in str(error.value)
    assert str(place) in str(error.value)
