"""The table of a study, and a page with it and its plots."""

from __future__ import annotations

import base64
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from vlmkit.architecture import Architecture
from vlmkit.comparing.candidates import Candidate
from vlmkit.comparing.findings import Spread, least_difference, not_worse, rank_correlation, spread
from vlmkit.comparing.study import Study
from vlmkit.comparing.world import World

BLUE, GREY, INK = "#0969da", "#afb8c1", "#1f2328"


@dataclass(frozen=True)
class Row:
    """A candidate under one budget."""

    candidate: Candidate
    scores: dict[str, Spread]
    """By task, over seeds."""
    by_seed: tuple[float, ...]
    """Mean of the tasks."""
    tokens: float
    """Visual tokens of an image, the mean of those that are asked about."""
    parameters: int
    step_seconds: float
    bytes: int

    @property
    def score(self) -> Spread:
        return spread(self.by_seed)


@dataclass(frozen=True)
class Table:
    budget: float
    measure: str
    rows: tuple[Row, ...]
    least: float | None
    """How far apart two means have to be to differ."""
    best: tuple[str, ...]
    """Candidates that do not differ from the best."""

    @property
    def columns(self) -> list[str]:
        tasks = list(self.rows[0].scores)
        return ["candidate", *tasks, *(["mean"] if len(tasks) > 1 else []), "visual tokens", "parameters", "step", "memory"]

    def lines(self) -> list[list[str]]:
        """Best first; those that do not differ from it carry a star."""
        more = self.measure == "right"
        ordered = sorted(self.rows, key=lambda row: row.score.mean, reverse=more)
        return [self._line(row) for row in ordered]

    def _line(self, row: Row) -> list[str]:
        star = " *" if self.least is not None and row.candidate.name in self.best else ""
        scores = [_spread(score) for score in row.scores.values()] + ([_spread(row.score)] if len(row.scores) > 1 else [])
        costs = [f"{row.tokens:.1f}", f"{row.parameters:,}", f"{1000 * row.step_seconds:.0f} ms", f"{row.bytes / 2**20:,.0f} MB"]
        return [row.candidate.name + star, *scores, *costs]

    def verdict(self) -> str:
        """What the scores say, in a sentence."""
        if self.least is None:
            return "With one seed nothing can be called a difference; give more with --seeds."
        if len(self.best) == len(self.rows):
            return f"No difference: two means differ where they are more than {self.least:.3f} apart, and none are."
        names = ", ".join(self.best)
        others = ", ".join(row.candidate.name for row in self.rows if row.candidate.name not in self.best)
        marked = f"do not differ from the best: {names}" if len(self.best) > 1 else f"is best: {names}"
        return f"Two means differ where they are more than {self.least:.3f} apart. Marked with a star, {marked}. Worse: {others}."


def tables(study: Study) -> list[Table]:
    """One a budget, of all trials that have a result under every seed."""
    return [found for budget, world in study.worlds.items() if (found := _table(study, budget, world)) is not None]


def _table(study: Study, budget: float, world: World) -> Table | None:
    rows = [row for candidate in study.candidates if (row := _row(study, candidate, budget, world)) is not None]
    if not rows:
        return None
    least = least_difference([row.by_seed for row in rows])
    means = {row.candidate.name: row.score.mean for row in rows}
    return Table(budget, world.measure, tuple(rows), least, tuple(not_worse(means, least, more_is_better=world.measure == "right")))


def _row(study: Study, candidate: Candidate, budget: float, world: World) -> Row | None:
    found = [study.result(candidate, seed, budget) for seed in range(study.seeds)]
    results = [result for result in found if result is not None]
    if len(results) < study.seeds:
        return None
    tasks = list(results[0]["scores"])
    return Row(
        candidate,
        {task: spread([result["scores"][task] for result in results]) for task in tasks},
        tuple(statistics.fmean(result["scores"].values()) for result in results),
        _tokens(candidate.architecture, world),
        candidate.architecture.parameters().total,
        statistics.median(result["step_seconds"] for result in results),
        max(result["bytes"] for result in results),
    )


def _tokens(architecture: Architecture, world: World) -> float:
    counts = {size: architecture.tokens(size) for size in set(world.sizes())}
    return statistics.fmean(counts[size] for size in world.sizes())


def page(study: Study, found: Sequence[Table]) -> str:
    """One HTML page that needs nothing else."""
    last = found[-1]
    what = "share of right answers" if last.measure == "right" else "loss"
    body = [
        f"<h1>{escape(study.path.name)}</h1>",
        f"<p>{len(study.candidates)} candidates, {study.seeds} seed{'s' * (study.seeds > 1)}, the same data in the same order. Scores are "
        f"the {what} on held-out samples, mean and standard deviation over seeds.</p>",
    ]
    for table in found:
        body += [f"<h2>{table.budget:g} of the steps</h2>", _html(table), f"<p>{escape(table.verdict())}</p>"]
    body += ["<h2>Score over visual tokens</h2>", _picture("score over visual tokens", lambda axes: draw_scores(axes, last))]
    if len(found) > 1:
        told = correlation(found[0], last)
        words = "cannot be said of so few, or of equal, scores" if told is None else f"{told:.2f}"
        body += [
            "<h2>Does a small budget tell the order?</h2>",
            f"<p>Spearman's rank correlation between {found[0].budget:g} and {last.budget:g} of the steps: {words}.</p>",
            _picture("scores of the two budgets", lambda axes: draw_budgets(axes, found[0], last)),
        ]
    return _PAGE.format(title=escape(study.path.name), body="\n".join(body))


def correlation(small: Table, large: Table) -> float | None:
    both = _both(small, large)
    return rank_correlation([one.score.mean for one, _ in both], [other.score.mean for _, other in both])


def draw_scores(axes: Any, table: Table) -> None:
    middle = _middle([row.tokens for row in table.rows])
    for row in table.rows:
        colour = BLUE if row.candidate.name in table.best else GREY
        axes.errorbar(row.tokens, row.score.mean, yerr=row.score.deviation, fmt="o", color=colour, capsize=4)
        _label(axes, row.candidate.name, row.tokens, row.score.mean, middle)
    axes.set_xlabel("visual tokens of an image")
    axes.set_ylabel("right answers" if table.measure == "right" else "loss")
    axes.margins(x=0.25, y=0.15)


def draw_budgets(axes: Any, small: Table, large: Table) -> None:
    both = _both(small, large)
    middle = _middle([one.score.mean for one, _ in both])
    for one, other in both:
        axes.errorbar(
            one.score.mean, other.score.mean, xerr=one.score.deviation, yerr=other.score.deviation, fmt="o", color=BLUE, capsize=4
        )
        _label(axes, one.candidate.name, one.score.mean, other.score.mean, middle)
    axes.set_xlabel(f"score at {small.budget:g} of the steps")
    axes.set_ylabel(f"score at {large.budget:g} of the steps")
    axes.margins(x=0.25, y=0.15)


def _both(small: Table, large: Table) -> list[tuple[Row, Row]]:
    others = {row.candidate.name: row for row in large.rows}
    return [(row, others[row.candidate.name]) for row in small.rows if row.candidate.name in others]


def _middle(values: Sequence[float]) -> float:
    return (min(values) + max(values)) / 2


def _label(axes: Any, name: str, x: float, y: float, middle: float) -> None:
    """Towards the middle, where there is room for words."""
    left = x > middle
    axes.annotate(
        name, (x, y), xytext=(-8 if left else 8, 4), textcoords="offset points", color=INK, horizontalalignment="right" if left else "left"
    )


def _picture(words: str, draw: Callable[[Any], None]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    draw(figure.subplots())
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return f"<img alt='{escape(words)}' src='data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'>"


def _html(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in table.lines())
    return f"<table><tr>{head}</tr>{rows}</table>"


def _spread(score: Spread) -> str:
    return f"{score.mean:.3f} ±{score.deviation:.3f}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328 }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
th, td {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #d0d7de; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
img {{ max-width: 100% }}
</style></head><body>
{body}
</body></html>
"""
