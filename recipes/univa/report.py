"""The report of a run: one HTML page that needs nothing else, pictures and curves inline."""

from __future__ import annotations

import base64
import io
import json
import platform
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
from charts import charts, smooth
from PIL import Image
from stages import Recipe

from vlmkit.architecture import PARTS, Architecture
from vlmkit.evaluation.tasks import Answer, TaskResult
from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.progress import clock
from vlmkit.training.run import RunDirectory

RIGHT, WRONG = 4, 4
"""Samples of each kind that are shown for each task."""

TITLES = {"description": "Description", "vqa": "Visual questions", "ocr": "Reading text"}


def page(
    recipe: Recipe,
    architecture: Architecture,
    run: RunDirectory,
    results: Sequence[TaskResult],
    seconds: float,
    asked: tuple[str, str] = ("", ""),
) -> str:
    """The report of a finished run. asked: a command that asks the model about a picture, and what it answers."""
    metrics = _metrics(run)
    scores = [
        "<section class='cards'>",
        *(_card(result) for result in results),
        "</section>",
        "<p class='note'>Every number is the share of answers that are right word for word, on images that were held out from training. "
        "<b>Swapped</b> is the same evaluation with the images exchanged among the samples: what is right there was guessed, not seen.</p>",
        *([_try_it(*asked)] if results else []),
        *(_gallery(result) for result in results),
    ]
    return _whole(recipe, architecture, run, metrics, _summary(recipe, architecture, metrics, seconds), scores)


def _try_it(command: str, said: str) -> str:
    if not command:
        return "<p class='note'>No held-out picture in samples/ was answered rightly: the model was trained too little.</p>"
    return (
        "<h2>Ask it</h2><p class='note'>Held-out pictures lie in samples/ beside this page, with what was asked and the right answers in "
        f"samples.json. This answers <b>{escape(said)}</b>, which is right:</p><pre>{escape(command)}</pre>"
    )


def stage_page(recipe: Recipe, architecture: Architecture, run: RunDirectory, seconds: float, samples: Sequence[TaskResult] = ()) -> str:
    """The report of a run that goes on: its curves so far, and what the model now says to `samples` of its training data. `page` takes its
    place when the run is finished."""
    metrics = _metrics(run)
    done = [stage.name for stage in recipe.stages if stage.name in metrics]
    summary = (
        f"Training: stage {escape(done[-1]) if done else 'none'} is done, {len(done)} of {len(recipe.stages)}, in {clock(seconds)} "
        f"({escape(recipe.name)} preset)."
    )
    shown = []
    if samples:
        shown = ["<p class='note'>Pictures of the training data, and what the model says to them after this stage: no score.</p>"]
        shown += [_gallery(result) for result in samples]
    return _whole(recipe, architecture, run, metrics, summary, shown)


def _metrics(run: RunDirectory) -> dict[str, list[dict[str, Any]]]:
    """The records of each stage that was begun."""
    metrics: dict[str, list[dict[str, Any]]] = {}
    for record in read_metrics(run.path):
        metrics.setdefault(record["stage"], []).append(record)
    return metrics


def _whole(
    recipe: Recipe,
    architecture: Architecture,
    run: RunDirectory,
    metrics: dict[str, list[dict[str, Any]]],
    summary: str,
    results: Sequence[str],
) -> str:
    body = [
        f"<header><h1>{escape(architecture.name)}</h1><p>{summary}</p></header>",
        *results,
        "<h2>How it learned</h2>",
        *([_STAGE_0] if any(stage.name.startswith("warmup") for stage in recipe.stages) else []),
        _stages(recipe, metrics),
        *(charts(stage, metrics[stage.name]) for stage in recipe.stages if stage.name in metrics),
        "<h2>The model</h2>",
        _model(architecture),
        f"<details><summary>The whole configuration</summary><pre>{escape(json.dumps(run.configuration(), indent=2))}</pre></details>",
        f"<footer>{escape(_machine(run))}</footer>",
    ]
    return _PAGE.format(title=escape(architecture.name), style=_STYLE, body="\n".join(body))


_STAGE_0 = (
    "<p>Stage 0 (<i>warm-up</i>) stands in for the published tower and language model, which do not exist at this size: the tower "
    "names the letter or shape in each cell of a picture through a layer that is thrown away, the language model answers questions "
    "about typed pages. After it nothing connects the two. From <i>align</i> on this is the published recipe: first only the "
    "connector learns, then everything.</p>"
)


def _summary(recipe: Recipe, architecture: Architecture, metrics: dict[str, list[dict[str, Any]]], seconds: float) -> str:
    samples = sum(len(metrics.get(stage.name, ())) * stage.batch_size * stage.accumulate for stage in recipe.stages)
    return (
        f"{architecture.parameters().total:,} parameters, trained for {clock(seconds)} on {samples:,} samples "
        f"in {len(recipe.stages)} stages ({escape(recipe.name)} preset)."
    )


# --- scores and samples -----------------------------------------------------------------------------------------------


def _card(result: TaskResult) -> str:
    right, errors = (100 * result.values()[name] for name in ("exact", "characters"))
    guessed, errors_blind = (100 * result.values(blind=True)[name] for name in ("exact", "characters"))
    return f"""<div class="card"><h3>{_title(result)}</h3>
<div class="big">{right:.1f}<small>%</small></div>
<div class="bar"><i style="width:{right:.1f}%"></i></div>
<div class="bar blind"><i style="width:{guessed:.1f}%"></i></div>
<p><b>{guessed:.1f}%</b> with images swapped<br>
character errors {errors:.1f}% (swapped {errors_blind:.1f}%)<br>{len(result.answers)} questions</p></div>"""


def _title(result: TaskResult) -> str:
    return escape(TITLES.get(result.name, result.name))


def _gallery(result: TaskResult) -> str:
    right = _spread([answer for answer in result.answers if answer.right], RIGHT)
    wrong = _spread([answer for answer in result.answers if not answer.right], WRONG)
    parts = [f"<h2>{_title(result)}</h2>"]
    for answers, words in ((right, "right"), (wrong, "wrong")):
        if answers:
            total = sum(answer.right == (words == "right") for answer in result.answers)
            parts.append(f"<h4>{words}: {len(answers)} of {total}</h4><section class='gallery'>")
            parts += [_sample(result, answer) for answer in answers]
            parts.append("</section>")
    return "\n".join(parts)


def _spread(answers: Sequence[Answer], count: int) -> list[Answer]:
    """At most `count` answers from all over, no picture twice, different questions where there are: not the best, not the worst."""
    of: dict[int, list[Answer]] = {}
    for answer in answers:
        of.setdefault(answer.question.image, []).append(answer)
    pictures = sorted(of)
    step = max(1, len(pictures) / count)
    chosen = [of[pictures[int(place * step)]] for place in range(min(count, len(pictures)))]
    return [asked[place % len(asked)] for place, asked in enumerate(chosen)]


def _sample(result: TaskResult, answer: Answer) -> str:
    assert answer.blind is not None, "a recipe asks blind too"
    assert answer.swapped is not None
    images = result.task.images
    mark = "right" if answer.right else "wrong"
    truth = "" if answer.right else f"<div class='truth'>right would be: {escape(answer.question.answer)}</div>"
    chance = " <i>(right by chance)</i>" if answer.right_blind else ""
    return f"""<figure><img src="{_picture(images[answer.question.image])}" alt="">
<figcaption><div class="q">{escape(answer.question.question)}</div>
<div class="a {mark}">{escape(answer.sighted) or "&nbsp;"}</div>{truth}
<div class="swap"><img src="{_picture(images[answer.swapped])}" alt=""><span>shown this instead:<br><b>{escape(answer.blind)}</b>{
        chance
    }</span></div></figcaption></figure>"""


def _picture(image: Any, longest: int = 320) -> str:
    """A data URI. Small pictures as they are, so that what the model saw is what the reader sees."""
    from vlmkit.preprocess.images import decode

    picture = Image.fromarray(np.asarray(decode(image)))
    picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG" if picture.width * picture.height < 60_000 else "JPEG")
    kind = "png" if buffer.getvalue().startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


# --- stages and curves ------------------------------------------------------------------------------------------------


def _stages(recipe: Recipe, metrics: dict[str, list[dict[str, Any]]]) -> str:
    rows = []
    before = 0.0
    for stage in recipe.stages:
        records = metrics.get(stage.name, [])
        last = records[-1]["seconds"] if records else before
        learning = ", ".join(f"{part.replace('_', ' ')} {getattr(stage, part):g}" for part in PARTS if stage.learns(part))
        data = ", ".join(source.name for source in stage.data)
        loss = f"{smooth([record['loss'] for record in records])[-1]:.3f}" if records else ""
        rows.append((stage.name, learning, data, f"{stage.steps} x {stage.batch_size * stage.accumulate}", clock(last - before), loss))
        before = last
    return _table(("stage", "what learns, at which peak rate", "data", "steps x samples", "time", "last loss"), rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"


# --- model and machine ------------------------------------------------------------------------------------------------


def _model(architecture: Architecture) -> str:
    parameters = architecture.parameters()
    parts = (
        ("image policy", architecture.policy.kind, ""),
        ("encoder", architecture.encoder.kind, f"{parameters.encoder:,}"),
        ("connector", architecture.connector.kind, f"{parameters.connector:,}"),
        ("layout", architecture.layout.kind, ""),
        ("fusion", architecture.fusion.kind, f"{parameters.fusion:,}" if parameters.fusion else ""),
        ("language model", architecture.language_model.model_type, f"{parameters.language_model:,}"),
    )
    return _table(("part", "kind", "parameters"), parts)


def _machine(run: RunDirectory) -> str:
    import torch
    import transformers

    import vlmkit

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads ({platform.machine()})"
    return (
        f"vlmkit {vlmkit.__version__}, Python {platform.python_version()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {device}. Steps: metrics.jsonl and tensorboard/ beside this page; the model: checkpoint/."
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --soft: #667085; --line: #e3e7ee; --paper: #fff; --wash: #f6f8fb; --accent: #2563eb;
  --good: #14803c; --bad: #c22f2f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9f0; --soft: #98a2b3; --line: #2b3343; --paper: #12161f; --wash: #1a202c;
  --accent: #6d9bff; --good: #4cc277; --bad: #ff7b72; } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1060px; padding: 32px 20px 60px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
h1 { font-size: 32px; margin: 0 } h2 { margin: 40px 0 8px; font-size: 21px } h3 { margin: 0; font-size: 15px } h4 { margin: 14px 0 6px;
  color: var(--soft); font-weight: 500; font-size: 13px }
header p, .note, footer { color: var(--soft) } header p { margin: 4px 0 24px; font-size: 16px } .note { font-size: 13.5px }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 14px }
.card { background: var(--wash); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px }
.card p { margin: 10px 0 0; font-size: 13px; color: var(--soft) } .card b { color: var(--ink) }
.big { font-size: 46px; font-weight: 650; line-height: 1.15 } .big small { font-size: 22px; color: var(--soft); margin-left: 2px }
.bar { height: 8px; background: var(--line); border-radius: 4px; overflow: hidden; margin-top: 5px }
.bar i { display: block; height: 100%; background: var(--accent) } .bar.blind i { background: var(--soft) }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(236px, 1fr)); gap: 14px }
figure { margin: 0; background: var(--wash); border: 1px solid var(--line); border-radius: 12px; overflow: hidden }
.gallery figure > img { display: block; width: 100%; height: 170px; object-fit: contain; background: var(--line) }
.gallery figcaption { padding: 10px 12px 12px } .q { color: var(--soft); font-size: 13px } .a { font-weight: 600; font-size: 16px }
.right { color: var(--good) } .wrong { color: var(--bad) }
.a.right::before { content: "\\2713\\00a0" } .a.wrong::before { content: "\\2717\\00a0" }
.truth { font-size: 13px } .swap { display: flex; gap: 8px; align-items: center; margin-top: 8px; padding-top: 8px; font-size: 12px;
  border-top: 1px solid var(--line); color: var(--soft) } .swap img { height: 36px; border-radius: 4px }
.swap b { color: var(--ink); font-weight: 500 }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; margin: 10px 0 18px } th { text-align: left; color: var(--soft);
  font-weight: 500 } th, td { padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px } .chart { padding: 10px 12px }
.chart figcaption { font-size: 13px; font-weight: 600 } svg { width: 100%; display: block } svg text { font-size: 10px; fill: var(--soft) }
svg line { stroke: var(--line) } polyline { fill: none; stroke-linecap: round; stroke: var(--accent); stroke-width: 1.8 }
.raw { opacity: .28; stroke-width: 1 }
.c1 { stroke: #d97706 } .c2 { stroke: #059669 } .c3 { stroke: #a855f7 } .key { font-weight: 400; color: var(--soft) }
.key i { display: inline-block; width: 10px; height: 3px; margin: 0 4px 3px 8px; background: var(--accent) }
.key .c1 { background: #d97706 }
.key .c2 { background: #059669 } .key .c3 { background: #a855f7 }
pre { overflow: auto; background: var(--wash); padding: 12px; border-radius: 8px; font-size: 12px }
summary { cursor: pointer; color: var(--soft) }
footer { margin-top: 36px; font-size: 12.5px; border-top: 1px solid var(--line); padding-top: 12px }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: training report</title><style>{style}</style></head>
<body>
{body}
</body></html>
"""
