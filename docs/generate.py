"""Write docs/catalogue.md and the model table of README.md from the registries.

    python docs/generate.py            write both
    python docs/generate.py --check    say what is stale and exit with 1, write nothing

Only what comes with vlmkit is listed: every kind with the first paragraph of its file, its fields with their docstrings and
the papers that the file cites; every named model with its parts, its parameters and what images cost.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import vlmkit
from vlmkit import zoo
from vlmkit.architecture import Architecture
from vlmkit.features import GridError
from vlmkit.preprocess.geometry import ImageSizeError, Size
from vlmkit.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "docs" / "catalogue.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- models: written by docs/generate.py -->", "<!-- end of models -->"
SIZES = (Size(224, 224), Size(336, 336), Size(480, 640), Size(1080, 1920), Size(3000, 2000))
FAMILIES: tuple[tuple[str, Registry[Any]], ...] = (
    ("Image policies", vlmkit.policies),
    ("Encoders", vlmkit.encoders),
    ("Connectors", vlmkit.connectors),
    ("Layouts", vlmkit.layouts),
    ("Fusions", vlmkit.fusions),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 where a file is stale; write nothing")
    check = parser.parse_args().check
    stale = 0
    for path, text in ((CATALOGUE, catalogue()), (README, readme())):
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        print(f"{path.relative_to(ROOT)} is stale: run `python docs/generate.py`" if check else f"wrote {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


def readme() -> str:
    """README.md with its model table anew."""
    text = README.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md has no lines {BEGIN!r} and {END!r} to write the model table between")
    rows = []
    for _, _, model in models():
        parts = (model.policy.kind, model.encoder.kind, model.connector.kind, model.fusion.kind)
        rows.append((f"`{model.name}`", *parts, language_model(model), millions(model.parameters().total), tokens(model, Size(480, 640))))
    head = ("model", "policy", "encoder", "connector", "fusion", "language model", "parameters", "tokens, 640x480")
    return f"{before}{BEGIN}\n\n{table(head, rows, right=2)}\n\n{END}{after}"


def catalogue() -> str:
    lines = [
        "# Catalogue",
        "Written from the registries by `python docs/generate.py`; a test fails where it is stale.",
        "## Models",
        *model_tables(),
        *(part for family in families() for part in family),
    ]
    for title, registry in FAMILIES:
        lines += [f"## {title}", paragraph(inspect.getdoc(sys.modules[registry.__name__]))]
        for kind in registry.names():
            lines += kind_entry(registry[kind])
    return "\n\n".join(lines) + "\n"


def models() -> Iterator[tuple[str, types.ModuleType, Architecture]]:
    """Every named model with its family and the family's file, families in the order of the zoo."""
    for family in zoo.FAMILIES:
        module = importlib.import_module(f"vlmkit.zoo.{family}")
        for model in module.MODELS:
            yield family, module, model


def model_tables() -> Iterator[str]:
    every = [model for _, _, model in models()]
    yield "Visual tokens of one image, by its size (width x height). `-` is a size that the image policy refuses."
    sizes = [f"{size.width}x{size.height}" for size in SIZES]
    yield table(("model", *sizes), [(f"`{model.name}`", *(tokens(model, size) for size in SIZES)) for model in every], right=len(sizes))
    yield "Parameters, counted on the meta device; a weight that is tied counts once."
    head = ("model", "encoder", "connector", "fusion", "language model", "all")
    rows = []
    for model in every:
        counts = model.parameters()
        rows.append((f"`{model.name}`", *(f"{count:,}" for count in (*counts, counts.total))))
    yield table(head, rows, right=5)


def families() -> Iterator[list[str]]:
    last = None
    for family, module, model in models():
        entry = []
        if family != last:
            entry += [f"### {family}", paragraph(inspect.getdoc(module)), *sources(module)]
            last = family
        parts = {
            "policy": described(model.policy),
            "encoder": described(model.encoder),
            "connector": described(model.connector),
            "layout": described(model.layout),
            "fusion": described(model.fusion),
            "language model": f"`{language_model(model)}`, {model.language_model.dim} wide"
            + (f", `{model.language_model.checkpoint}`" if model.language_model.checkpoint else ""),
        }
        yield [*entry, f"#### `{model.name}`", table(("part", "choice"), list(parts.items()))]


def described(part: Any) -> str:
    """`kind(field=value, ...)` with the fields that differ from their defaults; templates are left to the file."""
    given = []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if value != field.default and not isinstance(value, vlmkit.Settings) and field.name not in ("template", "mean", "std"):
            given.append(f"{field.name}={value!r}")
    return f"`{part.kind}({', '.join(given)})`"


def language_model(model: Architecture) -> str:
    return model.language_model.model_type


def tokens(model: Architecture, size: Size) -> str:
    try:
        return f"{model.tokens(size):,}"
    except (ImageSizeError, GridError):
        return "-"


def millions(count: int) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"


def kind_entry(part: type[Any]) -> Iterator[str]:
    module = sys.modules[part.__module__]
    own_file = part.__module__.rpartition(".")[2] == part.kind
    yield f"### `{part.kind}`"
    # What dataclass writes where nobody did begins with the name of the class.
    own = part.__dict__.get("__doc__") or ""
    own = "" if own.startswith(f"{part.__name__}(") else paragraph(own)
    described_by_file = paragraph(inspect.getdoc(module)) if own_file else ""
    yield from filter(None, (described_by_file, own))
    hints, docs = get_type_hints(part), field_docs(part)
    rows = []
    for field in dataclasses.fields(part):
        rows.append((f"`{field.name}`", type_name(hints[field.name]), default(field), docs.get(field.name, "")))
    if rows:
        yield table(("field", "type", "default", "what it is"), rows)
    yield from sources(module)


def sources(module: types.ModuleType) -> list[str]:
    """The papers that a file cites, as links."""
    found = dict.fromkeys(re.findall(r"arXiv:(\d{4}\.\d{4,5})", inspect.getsource(module)))
    links = ", ".join(f"[arXiv:{number}](https://arxiv.org/abs/{number})" for number in found)
    return [f"Cites {links}."] if links else []


def default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()!r}`"
    return "required"


def type_name(hint: Any) -> str:
    """A type as people say it: `int`, `"drop"` or `"keep"`, 3 x `float`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{choice!r}`" for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(choice) for choice in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"tuple of {type_name(arguments[0])}"
        if len(set(arguments)) == 1:
            return f"{len(arguments)} x {type_name(arguments[0])}"
        return f"({', '.join(type_name(item) for item in arguments)})"
    if hint is type(None):
        return "`None`"
    return f"`{hint.__name__}`" if isinstance(hint, type) else f"`{hint}`"


def field_docs(part: type[Any]) -> dict[str, str]:
    """The docstring below each field, a base's where the class repeats the field without one."""
    found: dict[str, str] = {}
    for cls in reversed(part.__mro__):
        if cls.__module__.startswith("vlmkit"):
            found |= _class_docs(cls.__module__).get(cls.__name__, {})
    return found


@functools.cache
def _class_docs(module: str) -> dict[str, dict[str, str]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    docs: dict[str, dict[str, str]] = {}
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        docs[cls.name] = {}
        for node, following in zip(cls.body, cls.body[1:], strict=False):
            is_field = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            if is_field and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                docs[cls.name][node.target.id] = paragraph(str(following.value.value))  # type: ignore[union-attr]
    return docs


def paragraph(text: str | None) -> str:
    """The first paragraph on one line."""
    first = re.split(r"\n\s*\n", inspect.cleandoc(text or ""))[0]
    return " ".join(first.split())


def table(head: Iterable[str], rows: Iterable[Iterable[str]], right: int = 0) -> str:
    """A Markdown table; the last `right` columns are numbers."""
    head = list(head)
    rules = ["---"] * (len(head) - right) + ["---:"] * right
    lines = [head, rules, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
