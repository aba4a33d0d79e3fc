"""transformers' configs of language models: read from a directory or a hub, and made from settings that mean what they say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from vlmkit.checkpoint_files import look_at
from vlmkit.hub import refuse_unreachable
from vlmkit.registry import suggestion
from vlmkit.spec import SpecError
from vlmkit.tokenizer import first_line

ROPE = {"rope_parameters", "rope_scaling", "rope_theta"}


def refuse_misspelled(model_type: str, settings: dict[str, Any]) -> None:
    """transformers keeps settings that it does not know, and takes its default for the one that was meant."""
    from transformers import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[model_type]
    own = config_class()
    known = vars(own).keys() | config_class.attribute_map.keys() | ROPE
    for name in settings.keys() - known - set(dir(own)):  # a property (output_attentions) is a setting too
        if near := get_close_matches(name, known, n=1, cutoff=0.85):
            raise SpecError(f"language_model.config.{name}: unknown setting of {model_type!r}, did you mean {near[0]!r}?")


def with_rope(model_type: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, with rotary ones spelled out for a class that has one rotary embedding a layer type (Olmo3, Gemma
    3): transformers ignores flat `rope_parameters` there, and gives `rope_theta` to the full layers only.

    Scaling is for the full layers; theta is for every layer type that has the full layers' theta by default.
    """
    from transformers import AutoConfig

    given = dict(settings.get("rope_parameters") or {})
    others = {name: value for name, value in settings.items() if name not in ROPE}
    nested = getattr(AutoConfig.for_model(model_type, **others), "rope_parameters", None) or {}
    if "full_attention" not in nested or any(isinstance(value, dict) for value in given.values()):
        return settings
    scaling = dict(settings.get("rope_scaling") or {}) | given
    if "type" in scaling:
        scaling.setdefault("rope_type", scaling.pop("type"))
    theta = scaling.pop("rope_theta", settings.get("rope_theta"))
    usual = nested["full_attention"]["rope_theta"]
    for parameters in nested.values():
        if theta is not None and parameters["rope_theta"] == usual:
            parameters["rope_theta"] = theta
    nested["full_attention"] |= scaling
    return others | {"rope_parameters": nested}


def read_config(name: str | os.PathLike[str], revision: str | None = None, trust_remote_code: bool = False) -> tuple[Any, str | None]:
    """The config of a language model in a directory or on a hub, and the commit of the latter that it is of. Raises SpecError."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

    place = os.fspath(name)
    local = os.path.isdir(os.path.expanduser(place))
    if local:
        place = os.path.abspath(os.path.expanduser(place))
        if not os.path.isfile(os.path.join(place, "config.json")):
            raise SpecError(f"language model {place!r}: no config.json there; name a directory that save_pretrained of a model wrote")
        look_at(place)
    try:
        if not local:
            refuse_unreachable(place, "config.json", revision)
        values, _ = PreTrainedConfig.get_config_dict(place, revision=revision)
        model_type = values.get("model_type")
        _refuse_sighted(place, values)
        if model_type not in CONFIG_MAPPING:
            near = suggestion(str(model_type), CONFIG_MAPPING)
            raise SpecError(f"language model {place!r} is of type {model_type!r}, which transformers does not have;{near}")
        pinned = None if local else _commit(place, revision)
        config = AutoConfig.from_pretrained(place, revision=pinned, trust_remote_code=trust_remote_code)
    except SpecError:
        raise
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        if local:
            raise SpecError(f"language model {place!r}: its config.json cannot be read ({first_line(error)})") from None
        if place.startswith((".", "/", "~")) or place.count("/") > 1:
            raise SpecError(f"language model {place!r}: there is no such directory, and it is no hub name such as 'owner/name'") from None
        at = "" if revision is None else f", revision {revision!r},"
        raise SpecError(
            f"language model {place!r}{at} is no directory here, and the hub gives no config of it ({first_line(error)}); give the path of "
            f"a directory, or fetch it where there is a network: hf download {place}"
        ) from None
    return config, pinned


def _commit(name: str, revision: str | None) -> str:
    """The commit that a branch or tag of a hub is at: huggingface_hub keeps the files of each in a directory called after it."""
    from transformers.utils import cached_file

    kept = os.path.dirname(cached_file(name, "config.json", revision=revision))
    return os.path.basename(kept) if os.path.basename(os.path.dirname(kept)) == "snapshots" else revision or "main"


def _refuse_sighted(place: str, values: Mapping[str, Any]) -> None:
    """Of a model that sees images the language model is a part, whose weights have other names in its files."""
    text = values.get("text_config")
    if values.get("model_type") == "vlmkit" or text or "vision_config" in values:
        inside = f", with a language model of type {text['model_type']!r} inside" if text and "model_type" in text else ""
        raise SpecError(
            f"language model {place!r} is a whole model of type {values.get('model_type')!r} that sees images{inside}; take its language "
            f"model out first: model, processor = vlmkit.load({place!r}); model.language_model.save_pretrained(directory); "
            "processor.tokenizer.save_pretrained(directory)"
        )
