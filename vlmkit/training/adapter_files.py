"""Adapters in a directory of their own, as PEFT writes and reads them.

adapter_config.json, adapter_model.safetensors   PEFT's: PeftModel.from_pretrained(model, directory)
adapters.json                                    the Adapter of each path, so that `load_adapters` makes them as they were
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vlmkit.files import replace_directory
from vlmkit.spec import SpecError
from vlmkit.training.adapter import Adapter
from vlmkit.training.adapters import NAME, adapted_layers, add_adapters, has_adapters, inject, is_adapter, merged_weight, plain_name
from vlmkit.training.expert_adapters import refuse_other_parameters
from vlmkit.training.four_bits import FourBits, dequantized

if TYPE_CHECKING:
    from vlmkit.model import VLM

SCHEMA = 1
_PREFIX = "base_model.model."
"""What stands before a name in PEFT's files."""


def save_adapters(model: VLM, directory: str | os.PathLike[str], state: Mapping[str, Tensor] | None = None) -> None:
    """Write the adapters alone; a directory of adapters that is there is replaced when the new one is whole.

    state: whole tensors by the names of the model's parameters, where its own are spread over processes. Raises SpecError where the model
    has no adapters, or something of PEFT that is not in these files, and FileExistsError where anything else has the name.
    """
    config = _config_of(model)
    path = Path(directory)
    if path.exists() and not (path.is_dir() and (not any(path.iterdir()) or (path / "adapter_config.json").is_file())):
        raise FileExistsError(f"{path} is there and holds no adapters; name a directory that is new, empty or of adapters")
    names = [name for name, _ in model.named_parameters() if is_adapter(name)]
    values = state if state is not None else dict(model.named_parameters())
    if missing := [name for name in names if name not in values]:
        raise SpecError(f"the state has no {missing[0]}; give every parameter of which is_adapter(name) is true")
    if spread := [name for name in names if values[name].is_meta or _is_spread(values[name])]:
        raise SpecError(f"{spread[0]} is not whole in this process; gather the parameters and pass them as `state`")
    with replace_directory(path) as written:
        # Copies: PEFT changes a config that it saves.
        saved = copy.deepcopy(config)
        saved.inference_mode = True
        saved.save_pretrained(str(written))
        save_file({_peft_name(name): values[name].detach().cpu().contiguous() for name in names}, written / "adapter_model.safetensors")
        if adapters := getattr(model, "adapters", None):
            text = {"schema": SCHEMA, "adapters": {path: adapter.to_dict() for path, adapter in adapters.items()}}
            (written / "adapters.json").write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def merged_state(model: VLM, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors by the names of a model with adapters -> those of the plain model, merged: what `merge_adapters` does where no process
    holds the model. `model` says the shapes alone, and may be on the meta device; its adapters are left as they are.
    """
    found = {plain_name(name): value for name, value in state.items() if not is_adapter(name)}
    for name, layer in adapted_layers(model).items():
        base = layer.get_base_layer()
        if isinstance(base, FourBits):
            packed, absmax = (found.pop(f"{name}.{kind}") for kind in ("packed", "absmax"))
            weight = dequantized(packed, absmax, base.in_features, base.dtype)
        else:
            weight = state[f"{name}.base_layer.weight"]
        first, second = (state[f"{name}.{kind}.{NAME}.weight"] for kind in ("lora_A", "lora_B"))
        merged = merged_weight(weight, first, second, layer.scaling[NAME], state.get(f"{name}.lora_magnitude_vector.{NAME}.weight"))
        found[f"{name}.weight"] = merged.to(weight.dtype)
    return found


def load_adapters(model: VLM, directory: str | os.PathLike[str]) -> VLM:
    """Add the adapters that `save_adapters` or PEFT wrote, in place, with their values; returns the model. They learn as after
    `add_adapters`.

    Raises FileNotFoundError where there are none, SpecError where they do not fit the model or hold more than low-rank adapters.
    """
    path = Path(directory)
    file = path / "adapter_model.safetensors"
    for needed in (path / "adapter_config.json", file):
        if not needed.is_file():
            raise FileNotFoundError(f"{path} holds no adapters (no {needed.name}); give a directory that save_adapters or PEFT wrote")
    if (path / "adapters.json").is_file():
        add_adapters(model, read_adapters(path))
    else:
        _add_theirs(model, path)
    own = {_peft_name(name): parameter for name, parameter in model.named_parameters() if is_adapter(name)}
    with safe_open(file, framework="pt") as saved, torch.no_grad():
        if differing := sorted(own.keys() ^ set(saved.keys())):
            raise SpecError(f"{file} does not fit the model; differing: {', '.join(differing[:10])}")
        for name, parameter in own.items():
            value = saved.get_tensor(name)
            if value.shape != parameter.shape:
                raise SpecError(f"{file}: {name} is {tuple(value.shape)}, the model needs {tuple(parameter.shape)}")
            parameter.copy_(value)
    return model


def read_adapters(directory: str | os.PathLike[str]) -> dict[str, Adapter]:
    """The Adapter of each path, as `save_adapters` wrote them. Raises SpecError for what is not that."""
    path = Path(directory) / "adapters.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        schema, adapters = found["schema"], found["adapters"].items()
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise SpecError(f"{path} is not a list of adapters ({error!r})") from None
    if schema != SCHEMA:
        raise SpecError(f"{path} has schema {schema!r}, this vlmkit reads {SCHEMA}")
    return {path: Adapter.from_dict(adapter, f"adapters[{path!r}]") for path, adapter in adapters}


def _add_theirs(model: VLM, path: Path) -> None:
    """What PEFT alone wrote: its config says all."""
    from peft import PeftConfig, inject_adapter_in_model

    if has_adapters(model):
        raise SpecError("the model has adapters already; merge_adapters makes them part of its weights, then it takes others")
    config = PeftConfig.from_pretrained(str(path))
    config.inference_mode = False
    _refuse_more(config, str(path))
    refuse_other_parameters(config, model, str(path))
    inject(inject_adapter_in_model, config, model)


def _config_of(model: nn.Module) -> Any:
    configs = getattr(model, "peft_config", None)
    if not configs or not has_adapters(model):
        raise SpecError("the model has no adapters; add_adapters puts them in, and save_pretrained saves a model without any")
    if list(configs) != [NAME]:
        raise SpecError(
            f"the model has adapters {', '.join(configs)}; save_adapters knows those of add_adapters alone, use PEFT's own save"
        )
    _refuse_more(configs[NAME], "the model")
    refuse_other_parameters(configs[NAME], model, "the model")
    return configs[NAME]


def _refuse_more(config: Any, where: str) -> None:
    """Raise SpecError for a PEFT config that trains other things than matrices of rank r."""
    more = [field for field in ("modules_to_save", "trainable_token_indices") if getattr(config, field, None)]
    if getattr(config, "bias", "none") != "none":
        more.append("bias")
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        more.insert(0, f"peft_type {config.peft_type!s}")
    if more:
        raise SpecError(f"{where} has adapters with {', '.join(more)}; PEFT's own PeftModel saves and loads those")


def _peft_name(name: str) -> str:
    """'connector.mlp.0.lora_A.default.weight' -> 'base_model.model.connector.mlp.0.lora_A.weight'; a magnitude is a vector without more."""
    return _PREFIX + name.replace(f".lora_magnitude_vector.{NAME}.weight", ".lora_magnitude_vector").replace(f".{NAME}.", ".")


def _is_spread(value: Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor) or hasattr(value, "ds_id")
