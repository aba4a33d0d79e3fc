"""Curves of a stage as SVG: loss, learning rates, norm of the gradient, tokens a second, and the share of time and of places lost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from vlmkit.training.progress import short
from vlmkit.training.stage import Stage

WIDTH, HEIGHT, LEFT, BOTTOM = 320, 170, 40, 22


class Curve(NamedTuple):
    """One line, which a chart with several of them names."""

    label: str
    css: str
    points: Sequence[tuple[int, float]]
    """(step, value)."""


def charts(stage: Stage, records: Sequence[dict[str, Any]]) -> str:
    """All curves of a stage that its records hold."""
    figures = [
        _chart(f"{stage.name}: loss", stage.steps, _with_mean(_points(records, "loss")), logarithmic=True),
        _chart("gradient norm", stage.steps, _with_mean(_points(records, "norm")), logarithmic=True),
    ]
    rates = [name for name in records[0] if name.startswith("rate/")]
    curves = [Curve(name[5:].replace("_", " "), f"c{number}", _points(records, name)) for number, name in enumerate(rates)]
    figures.append(_chart("learning rate", stage.steps, curves))
    speed = "tokens_per_second" if "tokens_per_second" in records[0] else "samples_per_second"
    figures.append(_chart(f"{speed.split('_')[0]} a second", stage.steps, _with_mean(_points(records, speed))))
    lost = [
        Curve(label, css, [(step, 100 * value) for step, value in _means(_points(records, name))])
        for label, css, name in (("waiting for data", "c0", "waiting"), ("padding", "c1", "padding"))
    ]
    figures.append(_chart("% lost", stage.steps, lost, least=5))
    if any("mfu" in record for record in records):
        curve = Curve("", "c0", [(step, 100 * value) for step, value in _means(_points(records, "mfu"))])
        figures.append(_chart("MFU in %", stage.steps, [curve]))
    figures += _scores(stage, records)
    return f"<h4>{escape(stage.name)}</h4><section class='charts'>{''.join(figures)}</section>"


def _scores(stage: Stage, records: Sequence[dict[str, Any]]) -> list[str]:
    """Of held-out samples, where they were asked on the way."""
    names = dict.fromkeys(name for record in records for name in record if name.startswith("score/"))
    kinds = (
        ("held-out answers right, %", "/exact", 100.0, False),
        ("with images swapped, %", "/exact blind", 100.0, False),
        ("held-out loss", "/loss", 1.0, True),
    )
    figures = []
    for title, kind, unit, logarithmic in kinds:
        curves = [
            Curve(name[6 : -len(kind)], f"c{number % 4}", [(step, unit * value) for step, value in _points(records, name)])
            for number, name in enumerate(name for name in names if name.endswith(kind))
        ]
        figures.append(_chart(title, stage.steps, curves, logarithmic=logarithmic, least=5))
    return figures


def smooth(values: Sequence[float]) -> list[float]:
    """Running mean over about a twentieth of the steps."""
    share = 1 / min(20, max(2, len(values) / 20))
    means: list[float] = []
    for value in values:
        means.append(value if not means else (1 - share) * means[-1] + share * value)
    return means


def _points(records: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(record["step"], float(record[name])) for record in records if name in record]


def _means(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    return list(zip((step for step, _ in points), smooth([value for _, value in points]), strict=True))


def _with_mean(points: Sequence[tuple[int, float]]) -> list[Curve]:
    """Every step, and their running mean."""
    return [Curve("", "raw", points), Curve("", "mean", _means(points))]


def _chart(title: str, steps: int, curves: Sequence[Curve], *, logarithmic: bool = False, least: float = 0.0) -> str:
    """Values over steps, from zero to the largest (`least` at least), or on a logarithmic scale; nothing where there are none."""
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return ""
    values = [max(1e-6, value) if logarithmic else value for curve in curves for _, value in curve.points]
    if logarithmic:
        low, high = math.log10(min(values)), math.log10(max(values))
        low, high = (low - 0.05, high + 0.05) if high - low < 0.2 else (low, high)
        marks = _powers(low, high)
    else:
        low, high = 0.0, 1.05 * max(*values, least, 1e-12)
        marks = _steps(high)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - 6) * step / max(1, steps - 1)

    def y(value: float) -> float:
        at = math.log10(max(1e-6, value)) if logarithmic else value
        return 8 + (HEIGHT - BOTTOM - 8) * (high - at) / (high - low)

    def line(curve: Curve) -> str:
        every = max(1, len(curve.points) // 300)
        drawn = list(itertools.islice(curve.points, 0, None, every))
        # A line from a point to itself is a dot, a single point is nothing.
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in (drawn * 2 if len(drawn) == 1 else drawn))
        return f'<polyline class="{curve.css}" points="{points}"/>'

    grid = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - 6}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        f'<text x="{LEFT - 5}" y="{y(value) + 3.5:.1f}" text-anchor="end">{short(value) if value >= 1000 else f"{value:g}"}</text>'
        for value in marks
    )
    grid += f'<text x="{LEFT}" y="{HEIGHT - 5}">0</text><text x="{WIDTH - 6}" y="{HEIGHT - 5}" text-anchor="end">{steps} steps</text>'
    key = "".join(f'<i class="{curve.css}"></i>{escape(curve.label)}' for curve in curves if curve.label)
    return f"""<figure class="chart"><figcaption>{escape(title)} <span class="key">{key}</span></figcaption>
<svg viewBox="0 0 {WIDTH} {HEIGHT}">{grid}{"".join(map(line, curves))}</svg></figure>"""


def _powers(low: float, high: float) -> list[float]:
    """Round numbers between two powers of ten, three or so: 1, 2 and 5 times a power."""
    candidates = [factor * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for factor in (1, 2, 5)]
    inside = [value for value in candidates if low <= math.log10(value) <= high]
    if len(inside) < 2:
        return [value for value in _steps(1.0001 * 10.0**high) if low <= math.log10(max(value, 1e-9)) <= high]
    return inside if len(inside) <= 5 else [value for value in inside if f"{value:e}"[0] == "1"]


def _steps(high: float) -> list[float]:
    """Round numbers from zero up to `high`, two to five of them behind zero."""
    power = 10.0 ** math.floor(math.log10(high))
    each = next(factor * power for factor in (0.2, 0.5, 1, 2, 5) if high / (factor * power) < 6)
    return [number * each for number in range(int(high / each) + 1)]
