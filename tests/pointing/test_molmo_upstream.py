"""Points in words beside what Molmo's own formatter wrote of them (tests/golden/molmo/README.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.molmo_upstream import golden
from vlmkit.data.formats.pixmo_points import asked
from vlmkit.pointing import Point, PointingError, parse, write
from vlmkit.preprocess.geometry import Size

SAID: list[dict[str, Any]] = golden("points")
PERCENT = Size(100, 100)


@pytest.mark.parametrize("number", range(len(SAID)))
def test_a_readers_answer_is_upstreams(number: int) -> None:
    said = SAID[number]
    answers = "counts" if said["style"] == "point_count" else "points"
    question, answer = asked(said["label"], said["points"], answers)
    assert answer["content"] == said["text"]
    assert said["label"].lower() in question["content"][-1]["text"]


@pytest.mark.parametrize("number", range(len(SAID)))
def test_what_upstream_writes_is_read_and_written_again(number: int) -> None:
    said = SAID[number]
    found = parse(said["text"], "molmo", PERCENT)
    assert [point.label for point in found if isinstance(point, Point)] == [said["label"].lower()] * len(said["points"])
    places = [place for point in found if isinstance(point, Point) for place in (point.x, point.y)]
    wanted = sorted((float(np.float64(x).round(1)), float(np.float64(y).round(1))) for x, y in said["points"])
    assert places == pytest.approx([number for point in wanted for number in point])
    words = said["text"].removeprefix("Counting the ").partition(" shows a total")[0]
    assert write(found, "molmo", PERCENT) == words


def test_tags_in_a_sentence_are_read_one_by_one() -> None:
    text = 'A <point x="1" y="2.0" alt="a "big" dog">dog</point>, <points x1="3.0" y1="4.0" x2="5" y2="6" alt="cats & co">them</points>.'
    assert parse(text, "molmo", PERCENT) == [Point(1, 2, 'a "big" dog'), Point(3, 4, "cats & co"), Point(5, 6, "cats & co")]


def test_a_label_that_would_close_its_tag_is_refused() -> None:
    with pytest.raises(PointingError, match="a label is written without '<' '>'"):
        write([Point(1, 2, "a > b")], "molmo", PERCENT)
