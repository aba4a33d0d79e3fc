"""`vlmkit show --points`: marks stand where they were said, and the rest of the picture stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmkit.cli import main
from vlmkit.pointing import Box, Point
from vlmkit.preprocess.geometry import Size
from vlmkit.show.points import EDGE, MARK, RADIUS, marked

GREY = (120, 120, 120)


def drawn(items, size=(200, 400), source=None):
    height, width = size
    return np.asarray(marked(Image.new("RGB", (width, height), GREY), items, source or Size(height, width)))


@pytest.mark.parametrize("times", [1, 2])
def test_a_point_is_drawn_around_its_place(times):
    pixels = drawn([Point(100.5 * times, 60.5 * times)], source=Size(200 * times, 400 * times))
    changed = np.argwhere((pixels != GREY).any(axis=2))
    assert tuple(pixels[60, 100]) == MARK
    assert abs(changed.mean(axis=0) - (60, 100)).max() < 0.6
    assert changed.min(axis=0).tolist() >= [60 - RADIUS - 2, 100 - RADIUS - 2]
    assert changed.max(axis=0).tolist() <= [60 + RADIUS + 2, 100 + RADIUS + 2]


def test_a_box_is_drawn_along_its_edges_and_is_seen_through():
    pixels = drawn([Box(50, 40, 150, 100)])
    assert all(tuple(pixels[place]) == MARK for place in ((40, 50), (40, 149), (99, 50), (99, 149)))
    assert all(tuple(pixels[place]) == EDGE for place in ((39, 49), (100, 150)))
    assert (pixels[50:90, 60:140] == GREY).all()
    assert (pixels[:38] == GREY).all()


@pytest.mark.parametrize(
    "item", [Point(0, 0, "a"), Point(400, 200, "a"), Box(0, 0, 400, 200, "a"), Box(7, 7, 7, 7, "a"), Point(1, 2, "long " * 40)]
)
def test_labels_stay_inside_of_the_picture(item):
    pixels = drawn([item])
    bare = drawn([type(item)(*(getattr(item, name) for name in item.__slots__[: 2 if isinstance(item, Point) else 4]))])
    assert ((pixels == MARK).all(axis=2) & ~(bare == MARK).all(axis=2)).sum() > 60


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (620, 400), GREY).save("photo.png")
    return tmp_path


@pytest.mark.parametrize(
    ("style", "text"),
    [
        (None, '<point x="50" y="50" alt="cup">cup</point>'),
        (None, "<ref>cup</ref><box>(400,400),(600,600)</box>"),
        (None, "<loc0409><loc0409><loc0614><loc0614> cup"),
        ("qwen", "<ref>cup</ref><box>(400,400),(600,600)</box>"),
        ("paligemma", "<loc0409><loc0409><loc0614><loc0614> cup"),
    ],
)
def test_show_draws_what_is_said_on_the_original(photo, capsys, style, text):
    options = [] if style is None else ["--style", style]
    assert main(["show", "photo.png", "--model", "univa-vl-tiny", "-o", "plain.png"]) == 0
    assert main(["show", "photo.png", "--model", "univa-vl-tiny", "-o", "said.png", "--points", text, *options]) == 0
    plain, said = (np.asarray(Image.open(name).convert("RGB")) for name in ("plain.png", "said.png"))
    assert plain.shape == said.shape
    assert (said == MARK).all(axis=2).sum() > 100 > (plain == MARK).all(axis=2).sum()
    assert ((said != plain).any(axis=2)).mean() < 0.02


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--points", "nothing here"], 2, "nothing is said in molmo's or qwen's or paligemma's words in 'nothing here'"),
        (["--points", "<box>(1,2),(3,4)</box>", "--style", "molmo"], 2, "nothing is said in molmo's words in '<box>"),
        (["--points", '<point x="101" y="1">'], 1, "says 101, expected numbers from 0 to 100"),
        (["--style", "qwen"], 2, "--style goes with --points"),
        (["--points", "a", "--steps"], 2, "--steps draws nothing"),
        (["--points", "a", "--video"], 2, "not on a film"),
    ],
)
def test_show_says_why_it_draws_nothing(photo, capsys, arguments, code, words):
    assert main(["show", "photo.png", "--model", "univa-vl-tiny", *arguments]) == code
    assert words in capsys.readouterr().err
    assert not list(photo.glob("photo.univa*"))
