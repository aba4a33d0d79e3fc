"""Write what README.md and docs say of the parts, the named models and the systems, from the registries and the tests.

    python docs/generate.py            write all of it
    python docs/generate.py --check    say what is stale and exit with 1, write nothing

Only what comes with vlmkit is listed. docs/catalogue.md: every kind with the first paragraph of its file, its fields with their
docstrings and the papers that the file cites; every named model with its parts, its parameters and what images cost.
docs/systems.md and the table of README.md: what the tests saw (docs/systems.json, which `pytest tests/families
--write-systems` writes). docs/published.md: the same of published makes (docs/published.json, `pytest tests/prompts
--write-published`). docs/systems/: a page a family with its pictures; mkdocs.yml lists them.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import makes
import pictures
import systems
from pieces import (
    ROOT,
    about,
    between,
    described,
    described_language_model,
    families,
    millions,
    models,
    own_words,
    paragraph,
    parameter_table,
    parts_of,
    sources,
    table,
    token_table,
    tokens,
)

import vlmkit
from vlmkit.preprocess.geometry import Size
from vlmkit.registry import Registry

REGISTRIES: tuple[tuple[str, Registry[Any]], ...] = (
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
    written = files()
    gone = [path for path in sorted(systems.FOLDER.glob("*")) if path not in written]
    stale = [path for path, content in written.items() if not is_current(path, content)]
    for path in stale:
        name = path.relative_to(ROOT)
        print(f"{name} is stale: run `python docs/generate.py`" if check else f"wrote {name}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(written[path])
    for path in gone:
        name = path.relative_to(ROOT)
        print(f"{name} belongs to no family: run `python docs/generate.py`" if check else f"removed {name}")
        if not check:
            path.unlink()
    return 1 if check and (stale or gone) else 0


def files() -> dict[Path, bytes]:
    """Every generated file with what it should hold."""
    pages = {
        ROOT / "docs" / "catalogue.md": catalogue(),
        ROOT / "docs" / "systems.md": systems.page(),
        ROOT / "docs" / "published.md": makes.page(),
        ROOT / "README.md": readme(),
        ROOT / "mkdocs.yml": navigation(),
        **systems.family_pages(),
    }
    return {path: text.encode() for path, text in pages.items()} | systems.photographs()


def is_current(path: Path, content: bytes) -> bool:
    """Whether a file holds this; of a photograph, whether it shows the same, for encoders of JPEG differ by their version."""
    if not path.exists():
        return False
    return pictures.alike(path.read_bytes(), content) if path.suffix == ".jpg" else path.read_bytes() == content


def readme() -> str:
    """README.md with its tables anew."""
    rows = []
    for model in models():
        parts = (kind for family, kind in model.kinds().items() if family != "layout")
        rows.append((f"`{model.name}`", *parts, millions(model.parameters().total), tokens(model, Size(480, 640))))
    head = ("model", "policy", "encoder", "connector", "fusion", "language model", "parameters", "tokens, 640x480")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, written in (("models", table(head, rows, right=2)), ("systems", systems.short_table())):
        text = between(text, f"<!-- {name}: written by docs/generate.py -->", f"<!-- end of {name} -->", f"\n\n{written}\n\n", "README.md")
    return text


def navigation() -> str:
    """mkdocs.yml with the families' pages in it."""
    lines = "".join(f"      - {title}: systems/{family}.md\n" for family, title in systems.titles().items())
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return between(text, "# families: written by docs/generate.py\n", "      # end of families", lines, "mkdocs.yml")


def catalogue() -> str:
    lines = [
        "# Catalogue",
        "Written from the registries by `python docs/generate.py`; a test fails where it is stale.",
        "## Models",
        "Visual tokens of one image, by its size (width x height). `-` is a size that the image policy refuses.",
        token_table(models()),
        "Parameters, counted on the meta device; a weight that is tied counts once.",
        parameter_table(models()),
        *family_entries(),
    ]
    for title, registry in REGISTRIES:
        lines += [f"## {title}", paragraph(inspect.getdoc(sys.modules[registry.__name__]))]
        for kind in registry.names():
            lines += kind_entry(registry[kind])
    return "\n\n".join(lines) + "\n"


def family_entries() -> Iterator[str]:
    for family, module in families():
        yield from (f"### {family}", paragraph(inspect.getdoc(module)), *sources(module))
        for model in module.MODELS:
            parts = [(role, described(part)) for role, part in parts_of(model)]
            parts.append(("language model", described_language_model(model)))
            yield from (f"#### `{model.name}`", table(("part", "choice"), parts))


def kind_entry(part: type[Any]) -> Iterator[str]:
    yield f"### `{part.kind}`"
    yield from dict.fromkeys(filter(None, (about(part), own_words(part))))
    hints, docs = get_type_hints(part), field_docs(part)
    rows = []
    for field in dataclasses.fields(part):
        rows.append((f"`{field.name}`", type_name(hints[field.name]), default(field), docs.get(field.name, "")))
    if rows:
        yield table(("field", "type", "default", "what it is"), rows)
    yield from sources(sys.modules[part.__module__])


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
            match node, following:
                case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str(said))):
                    docs[cls.name][field] = paragraph(said)
    return docs


if __name__ == "__main__":
    sys.exit(main())
