"""The choice of a model on the command line: a name, parts exchanged by theirs, and plugins that bring further ones."""

from __future__ import annotations

import json
import os
import sys
import warnings
from argparse import ArgumentParser, Namespace
from typing import Any

from vlmkit import written
from vlmkit.architecture import Architecture, VisionTower
from vlmkit.commands import UsageError
from vlmkit.commands.terminal import say
from vlmkit.connectors.base import Connector
from vlmkit.encoders.base import Encoder
from vlmkit.language_model import LanguageModel
from vlmkit.plugins import load_plugin
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.registry import suggestion
from vlmkit.spec import Spec, SpecError
from vlmkit.written import is_json
from vlmkit.zoo import architecture, list_models

EXCHANGEABLE: dict[str, type[Spec]] = {"policy": ImagePolicy, "encoder": Encoder, "connector": Connector}
"""Parts that decide what an image becomes."""


def add_plugin_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--plugin",
        metavar="FILE_OR_MODULE",
        dest="plugins",
        action="append",
        default=[],
        help="run my_connector.py or import my_package.parts first, so that the parts and models it registers have names; repeatable",
    )


def add_exchange_options(parser: ArgumentParser) -> None:
    for family in EXCHANGEABLE:
        parser.add_argument(
            f"--{family}",
            metavar="KIND[:FIELD=VALUE,...]",
            help=f"exchange the {family}, such as {_EXAMPLES[family]}; or its JSON",
        )
    parser.add_argument(
        "--beside",
        metavar="KIND[:FIELD=VALUE,...]",
        action="append",
        default=[],
        help="a further encoder that sees what the first one sees, under a connector that joins them (--connector joined); or the JSON of "
        'a tower, {"policy": {...}, "encoder": {...}}; repeatable, and in place of those that the model has',
    )


def add_language_model_option(parser: ArgumentParser) -> None:
    """For commands that take any model; a recipe is made for the language model that it names."""
    parser.add_argument(
        "--language-model",
        metavar="DIR",
        help="exchange the language model for that of a directory or a hub name, with its tokenizer and chat template; or its JSON",
    )


_EXAMPLES = {"policy": "squash:size=392", "encoder": "siglip", "connector": "mlp or mlp:depth=3"}


def load_plugins(arguments: Namespace) -> None:
    """Raises PluginError."""
    for name in arguments.plugins:
        load_plugin(name)


MODEL = "a named model ('vlmkit list' knows them), the directory of a run or checkpoint, or an architecture's JSON or its file"
"""What stands for a model, in the words of a command's help."""


def chosen(arguments: Namespace) -> Architecture:
    """The one model of `--model` with the parts that are exchanged. Raises ArchitectureError where they do not fit."""
    load_plugins(arguments)
    return exchange(described(arguments.model), arguments).validate()


def matching(arguments: Namespace) -> list[Architecture]:
    """Every model that the pattern of `--model` names, or the one that it describes, with the parts that are exchanged; they may not
    fit."""
    load_plugins(arguments)
    text = arguments.model
    if is_json(text) or (text not in list_models() and os.path.exists(text)):
        return [exchange(described(text), arguments)]
    return [exchange(architecture(name), arguments) for name in match(text, "model", list_models())]


def described(text: str) -> Architecture:
    """The architecture that stands for a model on the command line: see `MODEL`. A name comes before a directory called like it; write
    ./name for that. Of a directory its config is read, and no weights.

    Raises RegistryError for what is none of it, UsageError for JSON that is no architecture, CheckpointError for a directory without one.
    """
    if not is_json(text) and (text in list_models() or not os.path.exists(text)):
        return architecture(text)
    if not is_json(text) and os.path.isdir(text):
        from vlmkit.commands.checkpoint import architecture_of

        return architecture_of(text)
    try:
        return Architecture.from_json(text if is_json(text) else _read(text))
    except SpecError as error:
        raise UsageError(f"{'the model' if is_json(text) else repr(text)} is no architecture: {error}") from None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError:
        raise UsageError(f"{path!r} is no architecture: it is no text; give a file with an architecture's to_json()") from None


def match(pattern: str, family: str, known: list[str]) -> list[str]:
    """The known names that match a shell pattern. Raises UsageError where there are none."""
    from fnmatch import filter as matches

    found = matches(known, pattern)
    if not found:
        near = f" did you mean '{pattern}*'?" if matches(known, f"{pattern}*") else suggestion(pattern, known)
        raise UsageError(f"no {family} matches {pattern!r};{near} known: {', '.join(known)}")
    return found


def exchange(model: Architecture, arguments: Namespace) -> Architecture:
    """The model with the parts that were asked for; its name says which: univa-vl+mlp."""
    given = {family: text for family in EXCHANGEABLE if (text := getattr(arguments, family)) is not None}
    words = getattr(arguments, "language_model", None)
    if not given and not arguments.beside and words is None:
        return model
    parts: dict[str, Any] = {family: read_part(family, text) for family, text in given.items()}
    labels = [*map(_label, given.values()), *(f"beside={_label(text)}" for text in arguments.beside)]
    if words is not None:
        parts["language_model"] = read_language_model(words)
        labels.append(parts["language_model"].model_type if is_json(words) else os.path.basename(os.path.normpath(words)))
    exchanged = _noted(model, **parts, name="+".join([model.name, *labels]))
    towers = tuple(read_tower(text, exchanged.policy) for text in arguments.beside)
    return exchanged.replace(beside=towers) if towers else exchanged


def _noted(model: Architecture, **parts: Any) -> Architecture:
    """The model with parts exchanged; what a layout takes for a language model's sake is said on stderr. Raises UsageError."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        try:
            exchanged = model.replace(**parts)
        except SpecError as error:
            raise UsageError(f"{model.name}: {error}") from None
    for each in said:
        say(f"{model.name}: {each.message}", file=sys.stderr)
    return exchanged


def read_language_model(text: str) -> LanguageModel:
    """A directory, a hub name, or '{"model_type": ..., "config": {...}}'. Raises UsageError for what is none of it."""
    try:
        return LanguageModel.from_json(text, "language_model") if is_json(text) else LanguageModel.from_pretrained(text)
    except SpecError as error:
        raise UsageError(f"--language-model {text}: {error}") from None


def _label(text: str) -> str:
    """'{"kind": "mlp", "depth": 3}' -> 'mlp:depth=3', and a tower by its encoder."""
    if not is_json(text):
        return text
    fields = json.loads(text)
    fields = fields.get("encoder", fields)
    kind = fields.pop("kind")
    return f"{kind}:{','.join(f'{name}={json.dumps(value)}' for name, value in fields.items())}".removesuffix(":")


def read_part(family: str, text: str, option: str = "") -> Spec:
    """'mlp', 'mlp:depth=3' or '{"kind": "mlp", "depth": 3}' -> the part; `option` where it is not called like the family.

    Raises RegistryError for an unknown kind, UsageError for fields that do not fit.
    """
    try:
        return written.read_part(EXCHANGEABLE[family], text, family)
    except SpecError as error:
        raise UsageError(f"--{option or family} {text}: {error}") from None


def read_tower(text: str, policy: ImagePolicy) -> VisionTower:
    """An encoder under this policy, or '{"policy": {...}, "encoder": {...}}'. Raises as `read_part`."""
    try:
        if is_json(text) and "encoder" in json.loads(text):
            return VisionTower.from_json(text, "beside")
    except (SpecError, json.JSONDecodeError) as error:
        raise UsageError(f"--beside {text}: {error}") from None
    encoder = read_part("encoder", text, "beside")
    assert isinstance(encoder, Encoder)
    return VisionTower(policy=policy, encoder=encoder)
