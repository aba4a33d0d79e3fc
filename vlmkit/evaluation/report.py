"""What stays of an evaluation: every prediction as a JSON line, the scores, and a page of the best and the worst answers with their
pictures.

    predictions.jsonl   {"id": ..., "question": ..., "answers": [...], "said": ..., "read": ..., "score": 0.9, "blind": ..., "shown": 7}
    scores.json         {"task": ..., "questions": 5349, "images": 1286, "scores": {"anls": {"value": ..., "low": ..., "high": ...}}}
    page.html           opens anywhere; pictures are in it
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from vlmkit.evaluation.scoring import Score
from vlmkit.evaluation.tasks import Answer, TaskResult
from vlmkit.files import write_whole

SHOWN = 8
"""Answers of each kind on a page."""
COLUMNS = ("task", "score", "value", "95 % interval", "images swapped", "questions", "images")
NUMBERS = COLUMNS[2:]


def write(result: TaskResult, folder: Path, title: str) -> Path:
    """The three files; returns the page's path. title: what was evaluated."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions(result))
    write_whole(folder / "predictions.jsonl", lines.encode("utf-8", "surrogatepass"))
    write_whole(folder / "scores.json", json.dumps(as_json(result), indent=2) + "\n")
    write_whole(folder / "page.html", page(result, title).encode("utf-8", "replace"))
    return folder / "page.html"


def predictions(result: TaskResult) -> list[dict[str, Any]]:
    rows = []
    for answer, score in zip(result.answers, result.each, strict=True):
        question = answer.question
        row: dict[str, Any] = {"id": question.id, "question": question.question, "answers": list(question.references)}
        row |= {"said": answer.sighted, "read": result.task.read(answer.sighted), "score": score, "image": _name(result, question.image)}
        if answer.blind is not None and answer.swapped is not None:
            row |= {"blind": answer.blind, "shown": _name(result, answer.swapped)}
        rows.append(row)
    return rows


def as_json(result: TaskResult) -> dict[str, Any]:
    scores = {name: asdict(score) for name, score in result.sighted.items()}
    for name, score in (result.blind or {}).items():
        scores[name]["blind"] = asdict(score)
    return {"task": result.name, "questions": len(result.answers), "images": len(result.task.images), "scores": scores}


def rows(results: Sequence[TaskResult]) -> list[tuple[str, ...]]:
    """Of a table with COLUMNS: a line a score."""
    told: list[tuple[str, ...]] = []
    for result in results:
        for name, score in result.sighted.items():
            swapped = result.blind[name] if result.blind is not None else None
            blind = "not asked" if swapped is None else f"{swapped.value:.3f} ({_interval(swapped)})"
            counts = (str(len(result.answers)), str(len(result.task.images)))
            told.append((result.name, name, f"{score.value:.3f}", _interval(score), blind, *counts))
    return told


def _interval(score: Score) -> str:
    return "none" if score.low is None or score.high is None else f"{score.low:.3f} to {score.high:.3f}"


def _name(result: TaskResult, image: int) -> str:
    source = result.task.images[image]
    return str(source) if isinstance(source, str | Path) else str(image)


def page(result: TaskResult, title: str) -> str:
    """The answers that the leading score likes best and least, no picture twice, and what was said to the wrong picture."""
    metric = result.task.metrics[0]
    best = sorted(range(len(result.answers)), key=lambda number: result.each[number], reverse=metric.higher_is_better)
    kinds = (("Best", _different(result, best)), ("Worst", _different(result, best[::-1])))
    table = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows([result]))
    head = "".join(f"<th>{escape(column)}</th>" for column in COLUMNS)
    galleries = "".join(
        f"<h2>{kind} by {escape(metric.name)}</h2><section>{''.join(_figure(result, number) for number in numbers)}</section>"
        for kind, numbers in kinds
    )
    note = (
        "<p>Intervals: 1000 resamples of the pictures, each with all questions about it. Images swapped: the same questions about another "
        "picture of the set; what is right there was guessed.</p>"
    )
    body = f"<h1>{escape(result.name)}</h1><p>{escape(title)}</p><table><tr>{head}</tr>{table}</table>{note}{galleries}"
    return _PAGE.format(title=escape(f"{title}: {result.name}"), body=body)


def _different(result: TaskResult, numbers: Sequence[int]) -> list[int]:
    first: dict[int, int] = {}
    for number in numbers:
        first.setdefault(result.answers[number].question.image, number)
    return list(first.values())[:SHOWN]


def _figure(result: TaskResult, number: int) -> str:
    answer, score = result.answers[number], result.each[number]
    right = " &middot; ".join(escape(one) for one in dict.fromkeys(answer.question.references))
    return (
        f'<figure><img src="{picture(result.task.images[answer.question.image])}" alt=""><figcaption><p class="q">'
        f"{escape(answer.question.question)}</p><p><b>{escape(result.task.read(answer.sighted)) or '&nbsp;'}</b> <i>{score:.2f}</i></p>"
        f'<p class="q">right: {right}</p>{_swapped(result, answer)}</figcaption></figure>'
    )


def _swapped(result: TaskResult, answer: Answer) -> str:
    if answer.blind is None or answer.swapped is None:
        return ""
    shown = picture(result.task.images[answer.swapped], longest=72)
    return f'<p class="swap"><img src="{shown}" alt=""><span>to this picture: {escape(result.task.read(answer.blind))}</span></p>'


def picture(image: Any, longest: int = 360) -> str:
    """A data URI of a picture, small pictures without loss."""
    from PIL import Image

    from vlmkit.preprocess.images import decode

    drawn = Image.fromarray(decode(image))
    drawn.thumbnail((longest, longest))
    buffer = io.BytesIO()
    kind = "PNG" if drawn.width * drawn.height < 10_000 else "JPEG"
    drawn.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; --ink: #1d2433; --soft: #667085; --line: #e3e7ee; --paper: #fff; --wash: #f6f8fb }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6e9f0; --soft: #98a2b3; --line: #2b3343; --paper: #12161f; --wash: #1a202c }} }}
body {{ margin: 0 auto; max-width: 1060px; padding: 28px 20px 60px; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, sans-serif }}
h1 {{ margin: 0 }} h2 {{ margin: 32px 0 10px; font-size: 20px }} p {{ margin: 4px 0 12px; color: var(--soft) }}
table {{ border-collapse: collapse; margin: 14px 0; font-size: 14px }}
th, td {{ text-align: left; padding: 6px 18px 6px 0; border-bottom: 1px solid var(--line) }} th {{ color: var(--soft); font-weight: 500 }}
section {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(236px, 1fr)); gap: 14px }}
figure {{ margin: 0; background: var(--wash); border: 1px solid var(--line); border-radius: 10px; overflow: hidden }}
figure > img {{ display: block; width: 100%; height: 180px; object-fit: contain; background: var(--line) }}
figcaption {{ padding: 10px 12px; overflow-wrap: anywhere }} figcaption p {{ margin: 0 0 4px; color: var(--ink) }}
figcaption .q, .swap {{ font-size: 13px; color: var(--soft) }} i {{ color: var(--soft); font-style: normal; font-size: 13px }}
.swap {{ display: flex; gap: 8px; align-items: center; margin-top: 8px; padding-top: 8px; border-top: 1px solid var(--line) }}
.swap img {{ height: 36px; border-radius: 4px }}
</style></head><body>{body}</body></html>
"""
