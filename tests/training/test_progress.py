from __future__ import annotations

import io
import itertools
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from vlmkit.training.progress import StageProgress, clock, short
from vlmkit.training.spread import least_of

RECORD = {
    "tokens": 4096,
    "samples_per_second": 118.2,
    "tokens_per_second": 24_100.0,
    "images_per_second": 97.0,
    "mfu": 0.413,
    "flops_per_second": 4e14,
    "memory": 61.2e9,
    "padding": 0.04,
    "waiting": 0.012,
}
ALL = "loss 1.234  118 samples/s  24.1k tokens/s  97 images/s  41% MFU  61.2 GB  4% padding  1% waiting"


def shown(width: int, *, terminal: bool, record: dict[str, float] | None = RECORD, name: str = "align", steps: int = 400) -> str:
    """What stands on the screen, or in the file, after step 120, the fifth of this process; a step takes a second."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None, legacy_windows=False)
    ticks = itertools.count()
    told = {"steps": steps, "first": 115, "samples": 8, "seconds_between_lines": 4.5}
    with StageProgress(console, name, **told, seconds=lambda: float(next(ticks))) as progress:
        for step in range(116, 121):
            progress.update(step, 1.234, record)
    return file.getvalue()


def last_line(text: str) -> str:
    return [line for line in text.split("\r")[-1].split("\n") if "align" in line][-1].split("\x1b[2K")[-1].rstrip()


def test_a_plain_line_says_everything():
    line = shown(80, terminal=False)
    assert line.startswith(f"align      120/400  {ALL}  ")
    assert line.endswith(" left\n")
    assert line.count("\n") == 1


def test_a_wide_terminal_shows_everything():
    line = last_line(shown(160, terminal=True))
    assert f"120/400 {ALL}  " in line
    assert line.endswith(" left")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 140, 150])
def test_a_narrow_terminal_keeps_one_line_and_what_matters_most(width):
    line = last_line(shown(width, terminal=True))
    assert len(line) <= width
    assert "loss 1.234" in line
    assert line.endswith(" left")
    assert "…" not in line
    if width >= 80:
        assert "24.1k tokens/s  " in line
        assert "41% MFU" in line
    assert ("samples/s" in line) == (width >= 150)


def test_numbers_that_are_not_known_are_not_shown():
    line = shown(80, terminal=False, record={"samples_per_second": 4.0, "memory": 5e8})
    assert "loss 1.234  4 samples/s  0.5 GB  " in line
    assert "MFU" not in line
    assert "images" not in line


def test_without_a_record_samples_are_those_of_the_steps():
    line = shown(80, terminal=False, record=None)
    assert line == "align      120/400  loss 1.234  8 samples/s  4:40 left\n"


def lefts(seconds: list[float], steps: int) -> list[str]:
    """What is said to be left after each step, which takes so many seconds; "" where nothing is said."""
    file = io.StringIO()
    moments = itertools.accumulate([0.0, *seconds])
    told = {"steps": steps, "first": 0, "samples": 1, "seconds_between_lines": 0.0}
    with StageProgress(Console(file=file), "align", **told, seconds=lambda: next(moments)) as progress:
        for step in range(1, len(seconds) + 1):
            progress.update(step, 1.0, {})
    return [line.partition("loss 1.000")[2].strip().removesuffix(" left") for line in file.getvalue().splitlines()]


def test_a_slow_first_step_is_no_fright():
    said = lefts([40.0] + [0.1] * 60, steps=1000)
    assert said[:20] == [""] * 20, "nothing is said before there is a rate"
    assert said[21] == "1:38"
    assert said[-1] == "1:34", "what the first step took is in no estimate"


def test_the_rate_is_the_recent_one():
    said = lefts([1.0] * 50 + [10.0] * 60, steps=200)
    assert said[3] == "3:16"
    assert said[-1] == "15:00", "the slower steps are all that is remembered"
    assert lefts([1.0, 1.0], steps=2) == ["", "0:00"]
    assert lefts([60.0] * 5, steps=10)[3:] == ["6:00", "5:00"]


def test_a_loss_that_is_no_number_is_not_the_mean_of_those_behind_it():
    file = io.StringIO()
    with StageProgress(Console(file=file), "align", steps=4, first=0, samples=1, seconds_between_lines=0) as progress:
        for step, loss in enumerate((math.nan, 2.0, math.inf, 2.0), start=1):
            progress.update(step, loss)
    assert [line.split("loss ")[1].split()[0] for line in file.getvalue().splitlines()] == ["nan", "2.000", "2.000", "2.000"]


def test_lines_come_every_few_seconds_and_at_the_end():
    file = io.StringIO()
    with StageProgress(Console(file=file), "align", steps=50, first=0, samples=1, seconds_between_lines=0.05) as progress:
        for step in range(1, 51):
            time.sleep(0.004)
            progress.update(step, 1.0, RECORD)
    lines = file.getvalue().splitlines()
    assert 2 <= len(lines) <= 8
    assert "50/50" in lines[-1]
    assert lines[-1].endswith("0:00 left")


@given(st.floats(0, 9.9e14))
def test_short_numbers_are_short_and_close(value):
    text = short(value)
    assert len(text) <= 5
    units = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
    read = float(text.rstrip("kMGTP")) * units.get(text[-1], 1)
    assert abs(read - value) <= max(0.01 * value, 0.006)


@pytest.mark.parametrize(
    ("value", "text"), [(0.523, "0.52"), (4, "4"), (97, "97"), (118.2, "118"), (999.7, "1k"), (24_100, "24.1k"), (4.1e14, "410T")]
)
def test_short_numbers(value, text):
    assert short(value) == text


def test_clock():
    assert (clock(75), clock(3675)) == ("1:15", "1:01:15")


def test_the_least_used_expert_of_all_layers_is_shown_beside_an_equal_share():
    record = {"loss": 1.0, "experts/0/0": 0.5, "experts/0/1": 0.5, "experts/2/0": 0.6, "experts/2/1": 0.34, "experts/2/2": 0.06}
    assert least_of(record) == {"least_expert": pytest.approx(0.18)}
    assert least_of({"loss": 1.0}) == {}
    assert "24.1k tokens/s  97 images/s  41% MFU  least expert 18%  61.2 GB" in shown(80, terminal=False, record=RECORD | least_of(record))
