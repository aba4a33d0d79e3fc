"""Stages in files: YAML, or Python with a variable `STAGES`; strict as every spec is, with the line in the message.

    stages:
      - name: align
        tokens: 1_000_000_000
        batch_tokens: 262144
        pack: true
        max_length: 2048
        learn:
          connector: 1e-3
          encoder: {rate: 1e-6, warmup: 500}
        data:
          - {name: redcaps, weight: 0.8}
          - {name: coco, weight: 0.2}

Scalars are read as YAML 1.2 has them, so `1e-3` is a number and `no` is a word; PyYAML alone reads YAML 1.1, where neither is.
"""

from __future__ import annotations

import re
import runpy
import traceback
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from vlmkit.spec import SCHEMA, SpecError
from vlmkit.training.stage import Stage, refuse_twins

TRUE_OR_FALSE = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
NOTHING = re.compile(r"^(?:~|null|Null|NULL|)$")
WHOLE = re.compile(r"^[-+]?[0-9](?:_?[0-9])*$")
NUMBER = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9](?:_?[0-9])*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
KINDS = (
    ("tag:yaml.org,2002:bool", TRUE_OR_FALSE, "tTfF"),
    ("tag:yaml.org,2002:null", NOTHING, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", WHOLE, "-+0123456789"),
    ("tag:yaml.org,2002:float", NUMBER, "-+.0123456789"),
    ("tag:yaml.org,2002:merge", re.compile(r"^<<$"), "<"),
)
"""Type, how it is written, first letters."""
WORDS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (its base's way)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (its base's way)


for _tag, _form, _letters in KINDS:
    _Loader.add_implicit_resolver(_tag, _form, list(_letters))
    _Dumper.add_implicit_resolver(_tag, _form, list(_letters))
# Of a line break that is not \n PyYAML makes a space, unless double quotes spell it out.
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'),
)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node).replace("_", "")))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(loader.construct_scalar(node).replace("_", "")))


def read_stages(path: str | Path) -> tuple[Stage, ...]:
    """The stages of a file that ends in .yaml, .yml or .py, in their order.

    A Python file is run. Raises SpecError with the file, the line and the path of what does not fit, and where the file is missing.
    """
    path = Path(path)
    if path.suffix not in (".yaml", ".yml", ".py"):
        raise SpecError(f"{path}: stages are read from .yaml, .yml and .py files, not from {path.suffix or 'one without an ending'}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as stages ({error})") from None
    stages = _run(path) if path.suffix == ".py" else stages_from_yaml(text, str(path))
    try:
        refuse_twins(stages)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
    return stages


def stages_from_yaml(text: str, name: str = "the text") -> tuple[Stage, ...]:
    """Stages from YAML; `name` stands in messages for where it is from. Raises SpecError."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        lines: dict[str, int] = {}
        _locate(root, "", lines, name)
        content = loader.construct_document(root) if root is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise SpecError(f"{name}{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise SpecError(f"{name}: something in it is its own part, or it is nested too deeply") from None
    finally:
        loader.dispose()
    if not isinstance(content, dict) or not isinstance(content.get("stages"), list) or not content["stages"]:
        raise SpecError(f"{name}: expected `stages:` and a list of them")
    if further := sorted(map(str, content.keys() - {"stages", "schema"})):
        raise SpecError(f"{name}, line {lines[further[0]]}: {further[0]}: unknown field, known: schema, stages")
    if content.get("schema", SCHEMA) != SCHEMA:
        raise SpecError(
            f"{name}: schema: this vlmkit reads schema {SCHEMA}, the file says {content['schema']!r}; upgrade vlmkit to read it"
        )
    stages = []
    for number, plain in enumerate(content["stages"]):
        try:
            stages.append(Stage.from_dict(plain, f"stages[{number}]"))
        except SpecError as error:
            raise SpecError(f"{name}, line {_line(str(error), lines)}: {error}") from None
    return tuple(stages)


def stages_to_yaml(stages: Sequence[Stage]) -> str:
    """The text that `read_stages` reads these stages from; what is a stage's default is left out."""
    defaults = {field.name: field.default for field in fields(Stage)}
    kept = [{name: value for name, value in stage.to_dict().items() if getattr(stage, name) != defaults.get(name)} for stage in stages]
    text: str = yaml.dump(
        {"schema": SCHEMA, "stages": kept}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000, default_flow_style=False
    )
    return text


def _locate(node: yaml.Node | None, path: str, lines: dict[str, int], name: str) -> None:
    """Note the line of every value by its path, as errors of specs spell it; refuse names that are given twice, of which YAML would keep
    the last."""
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines.setdefault(f"{path}[{number}]", item.start_mark.line + 1)
            _locate(item, f"{path}[{number}]", lines, name)
    elif isinstance(node, yaml.MappingNode):
        given: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag not in WORDS:
                raise SpecError(f"{name}, line {line}: a field's name is a word, got {getattr(key, 'value', key)!r}")
            if key.value in given:
                raise SpecError(f"{name}, line {line}: {key.value}: given twice")
            given.add(key.value)
            below = f"{path}[{key.value!r}]" if path.endswith(".learn") else f"{path}.{key.value}" if path else key.value
            lines.setdefault(below, line)
            _locate(value, path if key.value == "<<" else below, lines, name)


def _line(message: str, lines: dict[str, int]) -> int:
    """The line of the longest path that a message begins with."""
    paths = [path for path in lines if message.startswith(path) and not message[len(path) :][:1].isalnum()]
    return lines[max(paths, key=len)]


def _run(path: Path) -> tuple[Stage, ...]:
    try:
        found = runpy.run_path(str(path)).get("STAGES")
    except SpecError as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise SpecError(f"{path}, line {lines[-1]}: {error}" if lines else f"{path}: {error}") from None
    except SyntaxError as error:
        raise SpecError(f"{path}, line {error.lineno}: not Python: {error.msg}") from None
    stages = (found,) if isinstance(found, Stage) else found
    if not isinstance(stages, list | tuple) or not stages or not all(isinstance(stage, Stage) for stage in stages):
        raise SpecError(f"{path}: expected a variable STAGES, a list or tuple of Stage; got {found!r}")
    return tuple(stages)
