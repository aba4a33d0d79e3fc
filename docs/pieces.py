"""What the generated pages are written with: the named models, what a file or a part says of itself, Markdown tables."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import vlmkit
from vlmkit import zoo
from vlmkit.architecture import Architecture
from vlmkit.features import GridError
from vlmkit.preprocess.geometry import ImageSizeError, Size

ROOT = Path(__file__).resolve().parent.parent
SIZES = (Size(224, 224), Size(336, 336), Size(480, 640), Size(1080, 1920), Size(3000, 2000))
"""Sizes of images in tables of tokens."""


def families() -> Iterator[tuple[str, types.ModuleType]]:
    """Every family of named models with its file, in the order of the zoo."""
    for family in zoo.FAMILIES:
        yield family, importlib.import_module(f"vlmkit.zoo.{family}")


def models() -> Iterator[Architecture]:
    """Every named model, in the order of the zoo."""
    for _, module in families():
        yield from module.MODELS


def token_table(every: Iterable[Architecture]) -> str:
    sizes = [f"{size.width}x{size.height}" for size in SIZES]
    rows = [(f"`{model.name}`", *(tokens(model, size) for size in SIZES)) for model in every]
    return table(("model", *sizes), rows, right=len(sizes))


def parameter_table(every: Iterable[Architecture]) -> str:
    head = ("model", "encoder", "connector", "fusion", "language model", "all")
    rows = []
    for model in every:
        counts = model.parameters()
        rows.append((f"`{model.name}`", *(f"{count:,}" for count in (*counts, counts.total))))
    return table(head, rows, right=5)


def described(part: Any) -> str:
    """`kind(field=value, ...)` with the fields that differ from their defaults; templates are left to the file."""
    given = []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if value != field.default and not isinstance(value, vlmkit.Settings) and field.name not in ("template", "mean", "std"):
            given.append(f"{field.name}={value!r}")
    return f"`{part.kind}({', '.join(given)})`"


def parts_of(model: Architecture) -> Iterator[tuple[str, Any]]:
    """What each part is called, and the part; a further tower's policy only where it is not the first one's."""
    yield "policy", model.policy
    yield "encoder", model.encoder
    for number, tower in enumerate(model.beside, 2):
        if tower.policy != model.policy:
            yield f"policy {number}", tower.policy
        yield f"encoder {number}", tower.encoder
    yield "connector", model.connector
    yield "layout", model.layout
    yield "fusion", model.fusion


def described_language_model(model: Architecture) -> str:
    """Its type, its width and where its weights come from."""
    part = model.language_model
    return f"`{part.model_type}`, {part.dim} wide" + (f", `{part.checkpoint}`" if part.checkpoint else "")


def about(part: Any) -> str:
    """The first paragraph of the file that a part or its class stands in, of the class itself where the file holds several."""
    cls = part if isinstance(part, type) else type(part)
    own_file = cls.__module__.rpartition(".")[2] == cls.kind
    return paragraph(inspect.getdoc(sys.modules[cls.__module__])) if own_file else own_words(cls)


def own_words(cls: type[Any]) -> str:
    """The first paragraph of a class; nothing for what dataclass writes where nobody did, which begins with its name."""
    own = cls.__dict__.get("__doc__") or ""
    return "" if own.startswith(f"{cls.__name__}(") else paragraph(own)


def papers(module: types.ModuleType) -> list[str]:
    """The papers that a file cites, as links."""
    found = dict.fromkeys(re.findall(r"arXiv:(\d{4}\.\d{4,5})", inspect.getsource(module)))
    return [f"[arXiv:{number}](https://arxiv.org/abs/{number})" for number in found]


def sources(module: types.ModuleType) -> list[str]:
    links = ", ".join(papers(module))
    return [f"Cites {links}."] if links else []


def tokens(model: Architecture, size: Size) -> str:
    try:
        return f"{model.tokens(size):,}"
    except (ImageSizeError, GridError):
        return "-"


def millions(count: int) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"


def paragraph(text: str | None) -> str:
    """The first paragraph on one line."""
    return next(iter(paragraphs(text)), "")


def prose(text: str) -> str:
    """Text of a docstring as Markdown: what would be a tag or emphasis there is neither."""
    return re.sub(r"`[^`]*`|[<*]", lambda found: found[0] if found[0][0] == "`" else f"\\{found[0]}", text)


def paragraphs(text: str | None) -> list[str]:
    """Paragraphs, each on one line."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", inspect.cleandoc(text or "")) if part.strip()]


def table(head: Iterable[str], rows: Iterable[Iterable[str]], right: int = 0) -> str:
    """A Markdown table; the last `right` columns are numbers."""
    head = list(head)
    rules = ["---"] * (len(head) - right) + ["---:"] * right
    lines = [head, rules, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def between(text: str, begin: str, end: str, written: str, file: str) -> str:
    """A text with what stands between two of its lines anew."""
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise SystemExit(f"{file} has no lines {begin!r} and {end!r} to write between")
    return f"{before}{begin}{written}{end}{after}"
