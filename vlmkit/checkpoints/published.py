"""What every family can do, and the files of one whose class lies as code beside the weights: they are read and written here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from vlmkit.architecture import Architecture
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor


class Published(Protocol):
    """One published model class. `family.py` has what those of transformers share."""

    def load(self, directory: str, dtype: torch.dtype | None = None) -> tuple[VLM, VLMProcessor]:
        """Model and processor of a published directory, in its own dtype unless another is asked for. Raises SpecError."""

    def described(self, directory: str) -> Architecture:
        """The architecture of a published directory, of which no weights are read. Raises SpecError for what vlmkit does not build."""

    def config(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        """What config.json says. Raises SpecError for an architecture that the published class cannot express."""

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Any:
        """The published processor, with `chat_template` None where it has none. Raises SpecError for what it cannot express."""

    def check(self, architecture: Architecture) -> None:
        """Raise SpecError for weights that the published class has no place for."""

    def export(self, model: VLM, processor: Any, config: Any, directory: str) -> None:
        """Write a directory that the published class loads, of what `processor` and `config` gave."""


def read_json(directory: str, file: str) -> dict[str, Any]:
    """Raises SpecError where the file is not there or holds no object."""
    try:
        found = json.loads(Path(directory, file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{directory}: {file} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise SpecError(f"{directory}: {file} holds no JSON object")
    return found


def write_json(directory: str, file: str, said: dict[str, Any]) -> None:
    """The directory is made where it is not there."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    Path(directory, file).write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_weights(directory: str) -> dict[str, Tensor]:
    """All tensors of a directory, by name: of its safetensors files, or of its older ones of torch, which are read as tensors alone. Raises
    SpecError where there are none, or a name stands in two files."""
    from safetensors.torch import load_file

    files = sorted(Path(directory).glob("*.safetensors"))
    older = sorted(Path(directory).glob("pytorch_model*.bin"))
    if not files and not older:
        raise SpecError(f"{directory} has no weights: neither *.safetensors nor pytorch_model*.bin is there")
    found: dict[str, Tensor] = {}
    for file in files or older:
        part = load_file(file) if files else torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if twice := found.keys() & part.keys():
            raise SpecError(f"{file}: {min(twice)} is in another file as well; leave one of the files out")
        found |= part
    return found


def write_weights(directory: str, weights: dict[str, Tensor]) -> None:
    """As safetensors in pieces of 5 GB, with the index that transformers reads."""
    from huggingface_hub import save_torch_state_dict

    whole = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_torch_state_dict(whole, directory, filename_pattern="model{suffix}.safetensors", max_shard_size="5GB", metadata={"format": "pt"})


def refuse_unknown(where: str, said: dict[str, Any], built: dict[str, Any], free: Iterable[str]) -> None:
    """Raise SpecError naming a field of a config that says otherwise than what is built; `free` ones are read, or change nothing."""
    for name, value in said.items():
        if name not in free and (name not in built or built[name] != value):
            raise SpecError(f"{where}.{name}: {value!r} is not built; expected {built.get(name, 'no such field')!r}")
