"""The table of published makes, from what the tests saw."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from pieces import ROOT, table

SEEN = ROOT / "docs" / "published.json"
SUFFIX = "ForConditionalGeneration"
WRITE = "pytest tests/prompts --write-published"
INTRODUCTION = """A checkpoint's directory says how its conversations are written: a chat template in Jinja, a tokenizer, a processor.
vlmkit runs what lies there. For each make below, tests write such a directory, tiny and with random weights, with the turns of that
make and a tokenizer of its kind, and hold `vlmkit.load` against transformers: `processor.apply_chat_template(conversation,
tokenize=True, return_dict=True)` and the published model class, `<class>{suffix}`. Every cell was written by a test
that ran to the end (`{write}`); a cell whose test did not is `-`. Compared under {versions}, on a CPU in float32."""
COLUMNS = """- **ids**: of the {kinds} kinds of conversation below, how many give the same ids, with and without a prompt for an answer;
how many both refuse (a template that has no place for a system message raises, and so does vlmkit, in its words); and how many the
reference takes only in part (`*`).
- **typed**: special tokens whose spelling stays text when somebody types it, in questions and answers; the reference takes them for
  its own.
- **labels**: supervised are the answers and the ends of their turns, and nothing else.
- **logits**: the largest difference at any position, with one image, two images and three turns. **pixels**: in steps of 255.
- **greedy**, **beams**: the same answers, token for token. **loss**: the difference over the same labels.
- **round trip**: saved by vlmkit and loaded again, the ids are the same. **exports**: so are those of transformers' processor over
  an exported directory."""
RULES = """`*`: where a template writes nothing of a message that is a string, or leaves a whole text out, the reference goes on without it;
vlmkit writes what the reference writes of the same words as an item, or refuses. PaliGemma's processor takes no text alone, its model
does. An added token that is not special (`<think>`) is one id wherever it is typed, as the tokenizer has it, unless the template writes
it around turns."""


def page() -> str:
    rows: dict[str, dict[str, Any]] = json.loads(SEEN.read_text(encoding="utf-8"))
    versions = sorted({f"torch {row['versions']['torch']}, transformers {row['versions']['transformers']}" for row in rows.values()})
    titles = list(dict.fromkeys(title for row in rows.values() for title in row.get("kinds", {})))
    head = ("make", "class", "tokenizer", "ids", "typed", "labels", "logits", "pixels", "greedy", "beams", "loss", "round trip", "exports")
    lines = [
        "# Published checkpoints",
        INTRODUCTION.format(write=WRITE, suffix=SUFFIX, versions=" and under ".join(versions)),
        table(head, [make_row(title, row) for title, row in rows.items()]),
        COLUMNS.format(kinds=len(titles)),
        RULES,
        "## Kinds of conversation",
        table(("kind", "makes with the same ids", "that refuse it", "`*`"), [kind_row(title, rows) for title in titles], right=3),
    ]
    return "\n\n".join(lines) + "\n"


def make_row(title: str, row: dict[str, Any]) -> tuple[str, ...]:
    counts = Counter(row.get("kinds", {}).values())
    said = ((counts["same"], " the same"), (counts["refused"], " refused"), (counts["own"], " *"))
    return (
        title,
        f"`{row['reference'].removesuffix(SUFFIX)}`" if "reference" in row else "-",
        row.get("tokenizer", "-"),
        ", ".join(f"{count}{words}" for count, words in said if count),
        str(row.get("typed", "-")),
        *(yes(row, "supervised"), number(row, "logits"), number(row, "pixels"), yes(row, "greedy"), yes(row, "beams")),
        *(number(row, "loss"), yes(row, "round_trip"), yes(row, "exports")),
    )


def kind_row(kind: str, rows: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    counts = Counter(row.get("kinds", {}).get(kind) for row in rows.values())
    return kind, *(str(counts[found] or "-") for found in ("same", "refused", "own"))


def number(row: dict[str, Any], column: str) -> str:
    return "-" if column not in row else f"{row[column]:.0e}" if row[column] else "0"


def yes(row: dict[str, Any], column: str) -> str:
    return "yes" if row.get(column) else "-"
