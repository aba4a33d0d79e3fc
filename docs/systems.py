"""The table of systems, from what the tests saw, and a page for each family of named models."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pictures
from pieces import (
    ROOT,
    about,
    described,
    described_language_model,
    families,
    papers,
    paragraphs,
    parameter_table,
    parts_of,
    prose,
    sources,
    table,
    token_table,
)

from vlmkit.architecture import Architecture
from vlmkit.checkpoints import FAMILIES, IN_GGUF, MODELS, WITH_CODE

FOLDER = ROOT / "docs" / "systems"
SEEN = ROOT / "docs" / "systems.json"
LICENCES = ROOT / "docs" / "licences.json"
WRITE = "pytest tests/families --write-systems"
INTRODUCTION = """Published models beside vlmkit's, small and with random weights, in the same tests for all that have a whole to compare
with. Every cell of this page was written by a test that ran to the end (`{write}`); a cell whose test did not is `-`. Compared under
{versions}, on a CPU in float32."""
COLUMNS = """- **logits**: the largest difference of any logit, for conversations with one image, several and none, alone and in one batch.
- **pixels**: the largest difference, in steps of 255, over images of random sizes, extreme ones among them.
- **ids**: of the same images' conversations.
- **greedy answer**: generated token for token.
- **loads** a directory that the published class wrote; **exports** one that this class reads, with equal weights and logits."""


def titles() -> dict[str, str]:
    """What each family is called: the first words of its file, before the paper or the colon."""
    return {family: re.split(r" \(|:", paragraphs(inspect.getdoc(module))[0])[0] for family, module in families()}


def short_table() -> str:
    """The table of README.md."""
    head = ("system", "compared with", "logits", "pixels", "ids", "greedy answer", "loads, exports", "trains")
    rows = []
    for title, row in seen().items():
        both = yes(row, "loads") if yes(row, "loads") == yes(row, "exports") else f"{yes(row, 'loads')}, {yes(row, 'exports')}"
        cells = (number(row, "logits"), number(row, "pixels"), same(row, "layout"), same(row, "generates"), both, yes(row, "trains"))
        rows.append((linked(title, row, "docs/"), reference(row, "see its page"), *cells))
    return table(head, rows)


def page() -> str:
    head = ("system", "compared with", "logits", "pixels", "ids", "greedy answer", "loads", "exports", "trains a step")
    rows = []
    for title, row in seen().items():
        cells = (number(row, "logits"), number(row, "pixels"), same(row, "layout"), same(row, "generates"))
        rows.append((linked(title, row), reference(row), *cells, *(yes(row, name) for name in ("loads", "exports", "trains"))))
    versions = sorted({f"torch {row['versions']['torch']}, transformers {row['versions']['transformers']}" for row in seen().values()})
    lines = [
        "# Systems",
        INTRODUCTION.format(write=WRITE, versions=" and under ".join(versions)),
        table(head, rows),
        COLUMNS,
        *compared(),
        "## Parameters",
        "Counted on the meta device and equal to the published class's own, part by part; to those that the parts are compared with "
        "where there is no such class.",
        table(("system", "model", "parameters"), parameter_rows(), right=1),
        *without_row(),
    ]
    return "\n\n".join(lines) + "\n"


def compared() -> Iterator[str]:
    """What stands in for a reference that is not there."""
    notes = [f"- **{title}**: {row['compared_with']}." for title, row in seen().items() if row["compared_with"]]
    if notes:
        yield "Where the published class is not all of the reference, or another stands in for it:"
        yield "\n".join(notes)


def without_row() -> Iterator[str]:
    """Named models that no system lists."""
    listed = {name for row in seen().values() for name in row["models"]}
    own = [(family, model.name) for family, module in families() for model in published(module)]
    links = [f"`{name}` ([why](systems/{family}.md))" for family, name in own if name not in listed]
    if links:
        yield f"Without anything published to compare with: {', '.join(links)}."


def parameter_rows() -> Iterator[tuple[str, str, str]]:
    for title, row in seen().items():
        for name, count in row.get("parameters", {}).items():
            yield title, f"`{name}`", f"{count:,}"


@functools.cache
def seen() -> dict[str, dict[str, Any]]:
    """Rows that the tests wrote, in the order of the tests."""
    rows: dict[str, dict[str, Any]] = json.loads(SEEN.read_text(encoding="utf-8"))
    return rows


def linked(title: str, row: dict[str, Any], folder: str = "") -> str:
    """A system's title as a link to its family's page."""
    for family, module in families():
        if any(model.name == row["tiny"] for model in module.MODELS):
            return f"[{title}]({folder}systems/{family}.md)"
    return title


def reference(row: dict[str, Any], note: str = "see below") -> str:
    return f"{of(row)} ({note})" if row["compared_with"] else of(row)


def of(row: dict[str, Any]) -> str:
    """The class that a system is compared with; for one whose parts are compared with others' there is none."""
    return "by parts" if by_parts(row) else f"`{row['reference']}`" if "reference" in row else "-"


def by_parts(row: dict[str, Any]) -> bool:
    return str(row["compared_with"]).startswith("by parts: ")


def number(row: dict[str, Any], column: str) -> str:
    return f"{row[column]:.0e}" if column in row else "-"


def same(row: dict[str, Any], column: str) -> str:
    return "the same" if row.get(column) else "-"


def yes(row: dict[str, Any], column: str) -> str:
    return "yes" if row.get(column) else "-"


def photographs() -> dict[Path, bytes]:
    """How a photograph is cut by the models of each family, and by all of them."""
    cut = {FOLDER / f"{family}.jpg": pictures.photograph(published(module)) for family, module in families()}
    every = [model for _, module in families() for model in published(module)]
    return cut | {ROOT / "docs" / "sheet.jpg": pictures.photograph(every, most_bytes=150_000)}


def family_pages() -> dict[Path, str]:
    pages: dict[Path, str] = {}
    for family, module in families():
        pages[FOLDER / f"{family}.md"] = "\n\n".join(family_page(family, module)) + "\n"
        pages[FOLDER / f"{family}.svg"] = pictures.flow(published(module)[0])
    return pages


def published(module: types.ModuleType) -> list[Architecture]:
    """Models of a family that are not tiny ones for tests and laptops."""
    return [model for model in module.MODELS if not model.name.endswith("-tiny")]


def family_page(family: str, module: types.ModuleType) -> Iterator[str]:
    models = published(module)
    first = models[0]
    yield f"# {titles()[family]}"
    yield from map(prose, paragraphs(inspect.getdoc(module)))
    yield from sources(module)
    yield f"Named models: {', '.join(f'`{model.name}`' for model in module.MODELS)}. In the code: `vlmkit/zoo/{family}.py`."
    yield "## Parts"
    yield f"What `{first.name}` is made of; [the catalogue](../catalogue.md#{family}) has the other models."
    rows = [
        (role, described(part), prose(about(part)), ", ".join(papers(sys.modules[type(part).__module__]))) for role, part in parts_of(first)
    ]
    rows.append(("language model", described_language_model(first), "A causal language model of transformers.", ""))
    yield table(("part", "choice", "what it is", "cites"), rows)
    yield "## The way of an image"
    example = pictures.EXAMPLE
    yield f"Shapes are those of one image of {example.width}x{example.height} under `{first.name}`; S is the length of the sequence."
    yield f"![From the image to logits]({family}.svg)"
    yield "## How a photograph is cut"
    yield f"![A photograph and what the encoder gets of it]({family}.jpg)"
    yield f"The photograph is scikit-image's `{pictures.PHOTO}`. For one of your own: `vlmkit show photo.jpg --model {first.name}`."
    yield "## Visual tokens"
    yield "Of one image, by its size (width x height). `-` is a size that the image policy refuses."
    yield token_table(models)
    yield "## Parameters"
    yield parameter_table(models)
    yield from comparison(models)
    yield from loading(family)
    yield "## Licence of the weights"
    yield from licence(models)


def comparison(models: list[Architecture]) -> Iterator[str]:
    names = {model.name for model in models}
    rows = {title: row for title, row in seen().items() if names & set(row["models"])}
    if rows:
        yield "## Compared"
        whole = not all(map(by_parts, rows.values()))
        what = "With the published implementation" if whole else "Part by part, for no class of transformers is the whole"
        yield f"{what}, small and with random weights; [Systems](../systems.md) says what was compared and has all other models."
        head = ("system", "class", "logits differ by", "pixels differ by", "ids", "greedy answer")
        cells = []
        for title, row in rows.items():
            cells.append((title, of(row), number(row, "logits"), number(row, "pixels"), same(row, "layout"), same(row, "generates")))
        yield table(head, cells)
        for title, row in rows.items():
            if row["compared_with"]:
                told = row["compared_with"]
                yield f"{title} is compared {told if told.startswith('by parts') else f'with {told}'}."


def loading(family: str) -> Iterator[str]:
    """Which class reads and writes the family's checkpoints: one of transformers, with what its file says beyond its first paragraph, or
    one that lies as code elsewhere or reads GGUF files, with all that its file says."""
    for file in dict.fromkeys(FAMILIES.values()):
        if family in MODELS.get(file, (file,)):
            module = importlib.import_module(f"vlmkit.checkpoints.{file}")
            name = module.FAMILY.reference().__name__
            yield "## Load and export"
            yield f"`vlmkit.load` reads directories of `{name}`, and `vlmkit export` writes them."
            yield from map(prose, paragraphs(inspect.getdoc(module))[1:])
    for file in dict.fromkeys((WITH_CODE | IN_GGUF).values()):
        if family in MODELS.get(file, (file,)):
            yield "## Load and export"
            yield "`vlmkit.load` reads published directories, and `vlmkit export` writes them; transformers has no class of theirs."
            yield from map(prose, paragraphs(inspect.getdoc(importlib.import_module(f"vlmkit.checkpoints.{file}"))))


def licence(models: list[Architecture]) -> Iterator[str]:
    yield (
        "The licence of published weights, not of vlmkit, as `docs/licences.json` states it. Read the model card before you use "
        "them: terms change, and those of the language model and of the training data come on top."
    )
    known = json.loads(LICENCES.read_text(encoding="utf-8"))
    rows = []
    for model in models:
        entry = known.get(model.name)
        if entry is None:
            rows.append((f"`{model.name}`", "-", "unknown", "-"))
            continue
        weights = entry["weights"]
        where = f"[{weights}](https://huggingface.co/{weights})" if weights else "not published"
        rows.append((f"`{model.name}`", where, entry["licence"], entry["source"]))
    yield table(("model", "weights", "licence", "source"), rows)
