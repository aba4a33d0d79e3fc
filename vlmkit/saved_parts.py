"""Whether a directory holds a model that vlmkit saved, and one of the parts that are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from vlmkit.architecture import Architecture


def refuse_other_type(directory: Any) -> None:
    """Raise SpecError for a directory with the config of a model that is not vlmkit's."""
    from transformers import PreTrainedConfig

    from vlmkit.config import VLMConfig

    found = PreTrainedConfig.get_config_dict(directory)[0].get("model_type")
    if found != VLMConfig.model_type:
        raise SpecError(f"{directory} holds a model of type {found!r}, not one that vlmkit saved ({VLMConfig.model_type!r})")


def check_parts(directory: Any, found: Architecture, expected: Architecture) -> None:
    """Raises SpecError with both of everything that differs, and how to keep the weights of the other parts."""
    there, here = found.to_dict() | {"name": ""}, expected.to_dict() | {"name": ""}
    if there == here:
        return
    kept = [part for part in ("encoder", "connector", "fusion", "language_model") if there[part] == here[part]]
    raise SpecError(
        f"{directory} holds {found.name!r} with other parts: {'; '.join(_differences(there, here))}. vlmkit.load reads it as it is. To "
        "train other parts beside its weights, build the model without weights, load this one as `trained`, and copy what is the same: "
        f"`for part in {kept}: getattr(model, part).load_state_dict(getattr(trained, part).state_dict())`"
    )


def _differences(there: dict[str, Any], here: dict[str, Any], path: str = "") -> Iterator[str]:
    """'connector is conv_patch_merger there, mlp here', or single fields where the kind is the same."""
    for name in dict.fromkeys((*there, *here)):
        one, other = there.get(name), here.get(name)
        if one == other:
            continue
        kinds = [value.get("kind") if isinstance(value, dict) else value for value in (one, other)]
        if isinstance(one, dict) and isinstance(other, dict) and kinds[0] == kinds[1]:
            yield from _differences(one, other, f"{path}{name}.")
        else:
            yield f"{path}{name} is {kinds[0]} there, {kinds[1]} here"
