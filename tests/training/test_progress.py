from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from vlmkit.training.progress import StageProgress, clock, short

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
    """What stands on the screen, or in the file, after step 120."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None, legacy_windows=False)
    with StageProgress(console, name, steps=steps, first=119, samples=8, seconds_between_lines=0.0) as progress:
        progress._begun -= 0.1
        progress.update(120, 1.234, record)
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
    rate = float(line.split("loss 1.234  ")[1].split(" samples/s")[0])
    assert 40 < rate <= 80  # 8 samples in a tenth of a second and a little


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
