"""What UI-TARS says that it does: every published action, the spellings that its own parser reads, and points in the screenshot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vlmkit
from tests.tiny import part
from vlmkit.actions import ARGUMENTS, Action, ActionError, Coordinates, Point, Reply, read_point, read_reply, write_point
from vlmkit.preprocess.geometry import ImagePlan, Size

POLICY = part(vlmkit.policies, "smart_resize", min_pixels=56 * 56, max_pixels=1280 * 28 * 28)
SCREEN = Size(1080, 1920)
PLAN: ImagePlan = POLICY.plan(SCREEN)
HALF = Point(960.0, 540.0)

sizes = st.builds(Size, st.integers(20, 4000), st.integers(20, 4000))
COORDINATES: tuple[Coordinates, ...] = ("thousandths", "pixels")


def actions(text: str) -> tuple[Action, ...]:
    return read_reply(f"Thought: so.\nAction: {text}", PLAN).actions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("click(start_box='(500,500)')", Action(name="click", start=HALF)),
        ("click(start_box='<|box_start|>(500,500)<|box_end|>')", Action(name="click", start=HALF)),
        ("left_double(start_box='[400, 450, 600, 550]')", Action(name="left_double", start=HALF)),
        ("right_single(start_box='<bbox>400 450 600 550</bbox>')", Action(name="right_single", start=HALF)),
        ("click(point='<point>500 500</point>')", Action(name="click", start=HALF)),
        ("drag(start_box='(500,500)', end_box='(0,1000)')", Action(name="drag", start=HALF, end=Point(0.0, 1080.0))),
        (
            "drag(start_point='<point>500 500</point>', end_point='<point>0 1000</point>')",
            Action(name="drag", start=HALF, end=Point(0, 1080)),
        ),
        ("scroll(start_box='(500,500)', direction='down')", Action(name="scroll", start=HALF, text="down")),
        ("scroll(start_box='(500,500)', end_box='(500,0)')", Action(name="scroll", start=HALF, end=Point(960.0, 0.0))),
        ("scroll(direction='up')", Action(name="scroll", text="up")),
        ("hotkey(key='ctrl c')", Action(name="hotkey", text="ctrl c")),
        ("type(content='two words\\n')", Action(name="type", text="two words\n")),
        ("wait()", Action(name="wait")),
        ("finished(content='42')", Action(name="finished", text="42")),
        ("finished()", Action(name="finished")),
        ("finished(content='')", Action(name="finished")),
        ("call_user()", Action(name="call_user")),
        ("long_press(start_box='(500,500)', time='2')", Action(name="long_press", start=HALF, text="2")),
        ("open_app(app_name='Maps')", Action(name="open_app", text="Maps")),
        ("press_home()", Action(name="press_home")),
        ("press_back( )", Action(name="press_back")),
    ],
)
def test_every_published_action_is_read(text: str, expected: Action) -> None:
    (found,) = actions(text)
    assert (found.name, found.text) == (expected.name, expected.text)
    for point, other in ((found.start, expected.start), (found.end, expected.end)):
        assert point == (None if other is None else pytest.approx(other))
    assert set(ARGUMENTS) >= {found.name}


def test_thought_reflection_and_several_actions() -> None:
    reply = read_reply(
        "Reflection: It failed.\nAction_Summary: Again,\nslowly.\nAction: click(start_box='(0,0)')\n\nwait()\n\npress_back()", PLAN
    )
    assert reply == Reply(
        "Again,\nslowly.", "It failed.", (Action(name="click", start=Point(0, 0)), Action(name="wait"), Action(name="press_back"))
    )
    assert read_reply("Thought: I see: a (big) one. Action: wait()", PLAN) == Reply("I see: a (big) one.", None, (Action(name="wait"),))
    assert read_reply("Action: wait()", PLAN) == Reply(None, None, (Action(name="wait"),))


@given(st.text(alphabet="ab '\"\\)(,=\n猫", min_size=1, max_size=12))
def test_what_is_typed_is_read_back_however_it_is_spelled(words: str) -> None:
    escaped = words.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    assert actions(f"type(content='{escaped}')\n\nwait()") == (Action(name="type", text=words), Action(name="wait"))


@pytest.mark.parametrize("words", ["it's", "don't (you)", "a, b", "'quoted'", "f('x', y)"])
def test_quotation_marks_that_a_model_forgot_to_escape_stay(words: str) -> None:
    assert actions(f"type(content='{words}')") == (Action(name="type", text=words),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Thought: nothing.", r"no 'Action:' in 'Thought: nothing\.'"),
        ("Action: look around", r"expected an action such as click\(start_box='\(x,y\)'\), got 'look around'"),
        ("Action: leap(start_box='(1,2)')", r"'leap' is none of click, left_double"),
        ("Action: click(content='a')", r"click takes start_box, got content"),
        ("Action: wait(time='1')", r"wait takes nothing, got time"),
        ("Action: click()", r"click is done somewhere, but has no start_box"),
        ("Action: drag(start_box='(1,2)')", r"drag ends somewhere, but has no end_box"),
        ("Action: click(start_box='(1,2,3)')", r"a box has two numbers or four, got '\(1,2,3\)'"),
        ("Action: click(start_box='(1,2)'", r"expected an argument such as start_box='\(x,y\)' and '\)' behind the last"),
        ("Action: click(start_box=(1,2))", r"expected an argument"),
    ],
)
def test_what_is_no_action_is_said_with_its_words(text: str, message: str) -> None:
    with pytest.raises(ActionError, match=message):
        read_reply(text, PLAN)


@given(sizes, st.floats(0, 1), st.floats(0, 1))
def test_points_go_through_the_plan_and_back(size: Size, across: float, down: float) -> None:
    """What a model says is a whole number: half of its unit is lost, and no more."""
    plan = POLICY.plan(size)
    point = Point(across * size.width, down * size.height)
    resized = plan.renders[0].resize
    for coordinates in COORDINATES:
        unit = (resized.width / 1000, resized.height / 1000) if coordinates == "thousandths" else (1.0, 1.0)
        back = read_point(*write_point(point, plan, coordinates), plan, coordinates)
        for one, other, side, canvas, lost in zip(
            back, point, (size.width, size.height), (resized.width, resized.height), unit, strict=True
        ):
            assert abs(one - other) * canvas / side <= lost / 2 + 1e-6


def test_a_pixel_of_the_resized_screenshot_is_its_place_in_the_screenshot() -> None:
    height, width = PLAN.renders[0].resize.height, PLAN.renders[0].resize.width
    assert (height, width) != (SCREEN.height, SCREEN.width)
    assert read_point(width, height, PLAN, "pixels") == pytest.approx((SCREEN.width, SCREEN.height))
    assert read_point(width / 4, height / 2, PLAN, "pixels") == pytest.approx((480, 540))


@given(sizes, st.sampled_from(["pad_square", "letterbox", "center_crop"]), st.floats(0, 1), st.floats(0, 1))
def test_padding_and_cropping_are_counted(size: Size, kind: str, across: float, down: float) -> None:
    plan: ImagePlan = part(vlmkit.policies, kind, size=336).plan(size)
    (render,) = plan.renders
    x, y = across * size.width, down * size.height
    assert render.to_image(*render.from_image(x, y, size), size) == pytest.approx((x, y), abs=1e-6)
    middle = render.from_image(size.width / 2, size.height / 2, size)
    assert max(abs(place - 168) for place in middle) <= 1.0 * max(1, 336 / min(size.height, size.width))


def test_a_screenshot_that_was_cut_has_no_one_grid_for_points() -> None:
    plan = part(vlmkit.policies, "anyres", size=336).plan(SCREEN)
    with pytest.raises(ActionError, match=r"points are said of one view, but the screenshot was cut into 5"):
        read_point(1, 1, plan)
