"""From the state of a run to a checkpoint that `vlmkit.load` reads, with the weights of one file in memory at a time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from vlmkit.architecture import Architecture
from vlmkit.build import building
from vlmkit.sliced import bare_of
from vlmkit.training.adapted import weights_of
from vlmkit.training.run import RunError
from vlmkit.training.states import SavedState
from vlmkit.weight_source import WeightSource, values_of

SHARD = "5GB"
WEIGHTS = "model.safetensors"


def consolidate(
    run: str | os.PathLike[str], directory: str | os.PathLike[str], *, averaged: bool = False, dtype: str | torch.dtype = "float32"
) -> None:
    """Write the weights of the last complete state of a run, whatever engine and number of processes saved it.

    directory: is made, and has to be empty. averaged: moving averages (`Stage.ema`) in place of the weights that they are of. dtype: of
    the written weights. Raises RunError where there is no state, or one of another model than a VLM, and StateError for a damaged one.
    """
    state = SavedState.newest(Path(run) / "state")
    if state is None:
        raise RunError(f"{os.fspath(run)} holds no saved state (no state/*/position.json); give the directory of a run that has begun")
    if averaged and not state.names("average"):
        raise RunError(f"{state.path} holds no moving averages; train with ema, or take the weights themselves")
    described = state.position.get("model")
    if described is None:
        raise RunError(f"{state.path} does not say of which architecture it is; only states of vlmkit's models are consolidated")
    write(Architecture.from_dict(described["architecture"]), weights_of(state, averaged=averaged), Path(directory), dtype)


def write(architecture: Architecture, weights: WeightSource, directory: Path, dtype: str | torch.dtype) -> None:
    """What `save_pretrained` of the model with these weights would write."""
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    model = bare_of(architecture, dtype)
    with building(dtype) as chosen:
        model.config.dtype = chosen
    own: dict[str, Any] = dict(model.named_parameters())
    own |= {name: value for name, value in model.state_dict().items() if name in dict(model.named_buffers())}
    directory.mkdir(parents=True, exist_ok=True)
    split = split_torch_state_dict_into_shards(own, max_shard_size=SHARD, filename_pattern=WEIGHTS.replace(".", "{suffix}."))
    for file, names in split.filename_to_tensors.items():
        tensors = {name: values_of(weights, name).to(own[name].dtype).contiguous() for name in names}
        save_file(tensors, directory / file, {"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (directory / f"{WEIGHTS}.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    model.config.save_pretrained(directory)
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.save_pretrained(directory)
