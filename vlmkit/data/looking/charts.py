"""The statistics of shards as one picture."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from vlmkit.data.looking.statistics import Content, Cost, Values

BLUE, GREY, RED, INK, MUTED = "#0969da", "#afb8c1", "#cf222e", "#1f2328", "#656d76"
BATCHES = (4, 8, 16, 32)
_BARS = 48


def draw(title: str, found: Content, cost: Cost | None, length: int) -> Image.Image:
    """A panel a question; those about tokens where there is a model. `length`: of packed rows, in tokens."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels: list[Callable[[Any], None]] = [
        lambda axes: _sizes(axes, found),
        lambda axes: _histogram(
            axes, found.per_image(lambda size: size.width / size.height), "images by aspect ratio", "width / height", log=True, mark=1.0
        ),
        lambda axes: _histogram(axes, found.text_bytes_per_sample, "samples by length of text", "bytes", log=True),
        lambda axes: _histogram(axes, found.images_per_sample, "samples by number of images", "images"),
    ]
    if cost is not None:
        lengths = Values(*np.unique(np.array(cost.lengths, np.float64), return_counts=True))
        panels[2:] = [
            lambda axes: _histogram(axes, cost.visual, "images by visual tokens", "visual tokens"),
            panels[2],
            lambda axes: _histogram(axes, lengths, "conversations by length", "tokens", mark=float(length)),
            lambda axes: _padding(axes, cost, length),
        ]
    if found.rejections.total():
        panels.append(lambda axes: _rejected(axes, found))
    columns = 3
    rows = -(-len(panels) // columns)
    style = {"font.family": "DejaVu Sans", "font.size": 10, "axes.edgecolor": GREY, "text.color": INK, "axes.labelcolor": MUTED}
    style |= {"xtick.color": MUTED, "ytick.color": MUTED, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 11}
    with rc_context(style | {"axes.titlelocation": "left", "axes.titleweight": "bold"}):
        figure = Figure(figsize=(14, 0.9 + 3.4 * rows), dpi=100, layout="constrained")
        figure.suptitle(_headline(title, found, cost), x=0.01, ha="left", fontsize=14, fontweight="bold", parse_math=False)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, axes in zip(panels, grid, strict=False):
            panel(axes)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # the font lacks some letters: boxes stand for them
            figure.savefig(file, format="png")
    return Image.open(file).convert("RGB")


def _headline(title: str, found: Content, cost: Cost | None) -> str:
    words = f"{title}: {found.samples:,} samples, {found.images:,} images"
    if cost is None:
        return words
    return f"{words}, {cost.visual.total:,.0f} visual tokens under {cost.model}"


def _sizes(axes: Any, found: Content) -> None:
    """Width against height, a darker cell for more images."""
    widths, heights, counts = (
        np.array(column)
        for column in zip(*[(size.width, size.height, count) for size, count in found.sizes.items()] or [(1, 1, 0)], strict=True)
    )
    edges = _edges(min(widths.min(), heights.min()), max(widths.max(), heights.max()), log=True)
    cells, _, _ = np.histogram2d(widths, heights, [edges, edges], weights=counts)
    axes.pcolormesh(edges, edges, np.ma.masked_equal(cells.T, 0) ** 0.5, cmap="Blues", vmin=-0.3 * cells.max() ** 0.5)
    axes.plot(edges[[0, -1]], edges[[0, -1]], color=GREY, linewidth=0.8)
    axes.set(xscale="log", yscale="log", title="images by size", xlabel="width", ylabel="height", aspect="equal")
    _plain(axes.xaxis)
    _plain(axes.yaxis)


def _histogram(axes: Any, values: Values, title: str, label: str, *, log: bool = False, mark: float | None = None) -> None:
    """log: of measures of any kind; otherwise of counts, a bar for each where there are few."""
    kept = values.values > 0 if log else np.ones(len(values.values), bool)
    here, counts = values.values[kept], values.counts[kept]
    if len(here):
        edges = np.arange(here[0] - 0.5, here[-1] + 1) if not log and here[-1] - here[0] < 100 else _edges(here[0], here[-1], log)
        # With an outline, a bar that is narrower than a pixel is seen.
        axes.hist(here, edges, weights=counts, color=BLUE, edgecolor=BLUE, linewidth=0.8)
    if log:
        axes.set_xscale("log")
        _plain(axes.xaxis)
    else:
        _whole(axes.xaxis)
    if mark is not None:
        axes.axvline(mark, color=RED, linewidth=1)
    axes.set(
        title=title, xlabel=f"{label}: median {_short(values.at(0.5))}, 5 to 95 % {_short(values.at(0.05))} to {_short(values.at(0.95))}"
    )
    _whole(axes.yaxis)


def _padding(axes: Any, cost: Cost, length: int) -> None:
    """How much of a batch is nobody's token, with rows padded to the longest and with packed ones."""
    names = [*(f"batch\n{batch}" for batch in BATCHES), f"packed\n{length:,}"]
    shares = [*(100 * cost.padding(batch) for batch in BATCHES), 100 * cost.packed_padding(length)]
    bars = axes.bar(names, shares, color=[GREY] * len(BATCHES) + [BLUE])
    axes.bar_label(bars, [f"{share:.1f} %" for share in shares])
    axes.set(title="share of padding: padded batches, packed rows", ylabel="%")
    axes.set_ylim(0, max(1.0, 1.15 * max(shares)))


def _rejected(axes: Any, found: Content) -> None:
    rows = [
        (f"{reason} ({source})" if len(found.rejections.sources) > 1 else reason, number)
        for source in found.rejections.sources
        for reason, number in found.rejections.by_reason(source).items()
    ]
    rows = sorted(rows, key=lambda row: row[1])[-8:]
    axes.barh(range(len(rows)), [number for _, number in rows], height=0.4, color=RED)
    for place, (name, number) in enumerate(rows):
        axes.text(0, place + 0.25, f"{number:,}  {name}"[:70], parse_math=False)
    axes.set(title="rejected when packing", yticks=[], ylim=(-0.5, max(4, len(rows)) - 0.2))
    _whole(axes.xaxis)


def _edges(low: float, high: float, log: bool) -> Any:
    if log:
        return np.geomspace(low / 1.1, high * 1.1, _BARS + 1)
    return np.linspace(low - 0.5, high + 0.5, _BARS + 1)


def _plain(axis: Any) -> None:
    """1, 2, 5, 10 in place of powers of ten alone, where there is room for them."""
    from matplotlib.ticker import LogLocator

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 2000 * low else (1,)))
    axis.set_major_formatter(lambda value, _: _short(value))
    axis.set_minor_formatter(lambda value, _: "")


def _whole(axis: Any) -> None:
    """Of a count: no ticks between whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator("auto", integer=True))
    axis.set_major_formatter(lambda value, _: _short(value))


def _short(value: float) -> str:
    """1,234 as it is, 1234567 as 1.23M; fractions with two digits."""
    for limit, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / unit:,.3g}{letter}"
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.2g}"
