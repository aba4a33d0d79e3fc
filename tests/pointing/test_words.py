"""Words and places: what is written is read back as it was said, on each style's grid, and nothing else is read."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.pointing import Box, Item, Point, PointingError, Scale, Style, from_pixels, parse, to_pixels, write
from vlmkit.pointing.scales import ENDS
from vlmkit.pointing.words import STYLES
from vlmkit.preprocess.geometry import Size

PHOTO = Size(500, 1000)
UNIT = {"molmo": 0.1 / 100, "qwen": 1 / 1000, "paligemma": 1 / 1023}
"""Of each style's grid, in widths of the picture."""

sizes = st.builds(Size, st.integers(1, 6000), st.integers(1, 6000))
shares = st.floats(0, 1)
labels = st.text(st.characters(exclude_characters="<>;\n", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), max_size=8)
masks = st.one_of(st.just(()), st.lists(st.integers(0, 127), min_size=16, max_size=16).map(tuple))


@st.composite
def boxes(draw: st.DrawFn, size: Size, masked: bool) -> Box:
    left, right = sorted(draw(st.tuples(shares, shares)))
    top, bottom = sorted(draw(st.tuples(shares, shares)))
    edges = (left * size.width, top * size.height, right * size.width, bottom * size.height)
    return Box(*edges, draw(labels), draw(masks) if masked else ())


def points(size: Size) -> st.SearchStrategy[Point]:
    return st.builds(lambda x, y, label: Point(x * size.width, y * size.height, label), shares, shares, labels)


def numbers(item: Item) -> tuple[float, ...]:
    return (item.x, item.y) if isinstance(item, Point) else (item.left, item.top, item.right, item.bottom)


@pytest.mark.parametrize("style", STYLES)
@given(data=st.data(), size=sizes)
def test_what_is_written_is_read_within_half_a_unit(style: Style, data: st.DataObject, size: Size) -> None:
    items = data.draw(st.lists(points(size) if style == "molmo" else boxes(size, style == "paligemma"), max_size=5))
    text = write(items, style, size)
    found = parse(text, style, size)
    assert [(type(item), item.label, getattr(item, "mask", ())) for item in found] == [
        (type(item), item.label, getattr(item, "mask", ())) for item in items
    ]
    for item, other in zip(items, found, strict=True):
        for axis, (number, back) in enumerate(zip(numbers(item), numbers(other), strict=True)):
            side = size.height if axis % 2 else size.width
            assert abs(number - back) <= side * UNIT[style] / 2 * (1 + 1e-9)
    assert parse(write(found, style, size), style, size) == found
    assert write(found, style, size) == text


@pytest.mark.parametrize("scale", [*ENDS, "pixels"])
@given(x=shares, y=shares, size=sizes)
def test_every_scale_has_its_inverse(scale: Scale, x: float, y: float, size: Size) -> None:
    there = from_pixels(x * size.width, y * size.height, scale, size)
    assert to_pixels(*there, scale, size) == pytest.approx((x * size.width, y * size.height), rel=1e-15, abs=1e-300)
    assert to_pixels(*from_pixels(size.width, size.height, scale, size), scale, size) == (size.width, size.height)


@pytest.mark.parametrize(
    ("style", "text", "expected"),
    [
        ("molmo", '<point x="10.5" y="20.1" alt="a cup">a cup</point>', [Point(105, 100.5, "a cup")]),
        ("molmo", '<points x1="10" y1="20" x2="30.25" y2="100" alt="cups">cups</points>',
         [Point(100, 100, "cups"), Point(302.5, 500, "cups")]),
        ("molmo", 'Here: <point x=" 0.0" y="0">it</point>, so.', [Point(0, 0, "it")]),
        ("qwen", "<ref> two cups</ref><box>(0,0),(10,20)</box><box>(5,5),(1000,1000)</box> on <box>(1,2),(3,4)</box>",
         [Box(0, 0, 10, 10, "two cups"), Box(5, 2.5, 1000, 500, "two cups"), Box(1, 1, 3, 2)]),
        ("qwen", "<box>( 1, 2 ), ( 3, 4 )</box>", [Box(1, 1, 3, 2)]),
        ("paligemma", "<loc0000><loc0000><loc1023><loc1023> cup ; <loc0000><loc1023><loc0000><loc1023> big dog<eos>",
         [Box(0, 0, 1000, 500, "cup"), Box(1000, 0, 1000, 0, "big dog")]),
        ("paligemma", "<loc0000><loc0000><loc1023><loc1023>" + "".join(f"<seg{code:03}>" for code in range(112, 128)) + " cup",
         [Box(0, 0, 1000, 500, "cup", tuple(range(112, 128)))]),
    ],
)  # fmt: skip
def test_published_spellings_are_read(style: Style, text: str, expected: list[Item]) -> None:
    found = parse(text, style, PHOTO)
    assert [replace(item, **_places(other)) for item, other in zip(found, expected, strict=True)] == expected
    for item, other in zip(found, expected, strict=True):
        assert numbers(item) == pytest.approx(numbers(other))


def _places(item: Item) -> dict[str, float]:
    return dict(zip(("x", "y") if isinstance(item, Point) else ("left", "top", "right", "bottom"), numbers(item), strict=True))


@pytest.mark.parametrize(
    ("style", "items", "text"),
    [
        ("molmo", [Point(125, 400, "cup")], '<point x="12.5" y="80.0" alt="cup">cup</point>'),
        ("molmo", [Point(1, 0, "a"), Point(-0.4, 500, "a"), Point(0, 0, "b")],
         '<points x1="0.1" y1="0.0" x2="0.0" y2="100.0" alt="a">a</points> <point x="0.0" y="0.0" alt="b">b</point>'),
        ("molmo", [], "There are none."),
        ("qwen", [Box(1, 1, 3, 2, "a"), Box(0, 0, 1000, 500, "a"), Box(0, 0, 0, 0)],
         "<ref>a</ref><box>(1,2),(3,4)</box><box>(0,0),(1000,1000)</box> <box>(0,0),(0,0)</box>"),
        ("paligemma", [Box(100, 50, 300, 200, "a"), Box(0, 0, 1000, 500)],
         "<loc0102><loc0102><loc0409><loc0307> a ; <loc0000><loc0000><loc1023><loc1023>"),
        ("paligemma", [], ""),
    ],
)  # fmt: skip
def test_words_are_those_of_the_papers(style: Style, items: list[Item], text: str) -> None:
    assert write(items, style, PHOTO) == text


@pytest.mark.parametrize("style", STYLES)
@given(
    text=st.text(st.characters(exclude_characters="<")) | st.sampled_from(["<point>1 2</point>", "<quad>(1,2)</quad>", "a < b", "<seg001>"])
)
def test_text_that_is_no_point_is_left_alone(style: Style, text: str) -> None:
    assert parse(text, style, PHOTO) == []
    said = {"molmo": '<point x="1" y="2">', "qwen": "<box>(1,2),(3,4)</box>", "paligemma": "<loc0001><loc0002><loc0003><loc0004>"}[style]
    assert len(parse(f"{text}{said}", style, PHOTO)) == 1


PIECES = (
    "<point",
    "<points",
    ' x="',
    ' y="',
    ' x1="',
    ' y1="',
    '"',
    ' alt="',
    ">",
    "</point>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
    "(",
    ")",
)
PIECES += (",", "<loc0001>", "<loc1022>" * 2, "<seg001>" * 16, "<seg999>", " ; ", "cup", "1", "-5", "99.5", "9" * 5000, "\n")


@pytest.mark.parametrize("style", STYLES)
@given(text=st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_words_are_read_or_refused(style: Style, text: str) -> None:
    try:
        found = parse(text, style, PHOTO)
    except PointingError:
        return
    for item in found:
        assert all(0 <= number <= (PHOTO.height if axis % 2 else PHOTO.width) for axis, number in enumerate(numbers(item)))


@pytest.mark.parametrize(
    ("style", "text", "reason"),
    [
        ("molmo", '<point x="100.5" y="2" alt="a">a</point>', "says 100.5, expected numbers from 0 to 100"),
        ("molmo", '<point x="-1" y="2" alt="a">a</point>', "says -1, expected numbers from 0 to 100"),
        ("molmo", '<point x="nan" y="2" alt="a">a</point>', "says x='nan', expected a number from 0 to 100"),
        ("molmo", '<point x="1" alt="a">a</point>', "has x or y alone, expected both"),
        ("molmo", '<points x1="1" y1="2" x2="3" alt="a">a</points>', "has x2 or y2 alone, expected both"),
        ("molmo", '<points x1="1" y1="2" x1="3" y2="4" alt="a">a</points>', "says x1 twice"),
        ("qwen", "<box>(1,2),(3,1001)</box>", "says 1001, expected numbers from 0 to 1000"),
        ("qwen", "<box>(1,2),(3,4.5)</box>", "is no box, expected whole numbers"),
        ("qwen", "<box>(1,2)</box>", "is no box, expected whole numbers"),
        ("qwen", "<box>(5,2),(3,4)</box>", "ends before it begins"),
        ("paligemma", "<loc0001><loc0002><loc0003> a", "has 3 locations in a row, expected 4"),
        ("paligemma", "<loc0001><loc0002><loc0003><loc1024> a", "says 1024, expected numbers from 0 to 1023"),
        ("paligemma", "<loc0003><loc0002><loc0001><loc0004> a", "ends before it begins"),
        ("paligemma", "<loc0001><loc0002><loc0003><loc0004><seg001> a", "has 1 codes of a mask, expected 16 or none"),
        ("paligemma", "<loc0001><loc0002><loc0003><loc0004>" + "<seg128>" * 16, "says code 128 of a mask, expected 0 to 127"),
    ],
)
def test_wrong_numbers_are_refused_with_the_words(style: Style, text: str, reason: str) -> None:
    with pytest.raises(PointingError, match=reason) as caught:
        parse(f"so: {text}", style, PHOTO)
    assert text[:24] in str(caught.value)


@pytest.mark.parametrize(
    ("style", "item", "reason"),
    [
        ("molmo", Box(1, 2, 3, 4), "molmo writes points"),
        ("qwen", Point(1, 2), "qwen writes boxes without masks"),
        ("qwen", Box(1, 2, 3, 4, "", (0,) * 16), "qwen writes boxes without masks"),
        ("paligemma", Point(1, 2), "paligemma writes boxes"),
        ("molmo", Point(1001, 2), "outside of the 1000 x 500 pixels"),
        ("qwen", Box(-1, 2, 3, 4), "outside of the 1000 x 500 pixels"),
        ("paligemma", Box(1, 2, 3, 501), "outside of the 1000 x 500 pixels"),
        ("molmo", Point(1, 2, "a > b"), "a label is written without"),
        ("qwen", Box(1, 2, 3, 4, "a<b"), "a label is written without"),
        ("paligemma", Box(1, 2, 3, 4, "a ; b"), "a label is written without"),
        ("paligemma", Box(1, 2, 3, 4, " a"), "a label is written without"),
    ],
)
def test_what_a_style_has_no_words_for_is_refused(style: Style, item: Item, reason: str) -> None:
    with pytest.raises(PointingError, match=reason):
        write([item], style, PHOTO)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Point(math.nan, 0), "finite numbers"),
        (lambda: Box(0, 0, math.inf, 0), "finite numbers"),
        (lambda: Box(2, 0, 1, 0), "its left edge before its right one"),
        (lambda: Box(0, 2, 0, 1), "its top above its bottom"),
        (lambda: Box(0, 0, 1, 1, "", (1, 2)), "a mask is 16 codes, got 2"),
        (lambda: Box(0, 0, 1, 1, "", (128,) * 16), "from 0 to 127, got 128"),
        (lambda: parse("", "kosmos", PHOTO), "'kosmos' is no style, expected one of molmo, qwen, paligemma"),
        (lambda: to_pixels(1, 2, "promille", PHOTO), "'promille' is no scale"),
    ],
)
def test_what_is_no_place_is_refused(make, reason: str) -> None:
    with pytest.raises(PointingError, match=reason):
        make()
