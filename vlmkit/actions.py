"""What an agent on a screen says that it does, with points in pixels of the screenshot: the action space of UI-TARS.

    Thought: The field is empty.
    Action: click(start_box='(313,500)')

Qin et al. 2025 (arXiv:2501.12326), read as codes/ui_tars/action_parser.py of github.com/bytedance/UI-TARS reads it. A model says
where in numbers of its own, and which ones differs from version to version:

    checkpoints                                                        coordinates
    UI-TARS-2B-SFT, -7B-SFT, -7B-DPO, -72B-SFT, -72B-DPO (Qwen2-VL)    "thousandths" of the width and of the height
    UI-TARS-1.5-7B (Qwen2.5-VL)                                        "pixels" of the screenshot as it was resized for the model

Either way a point goes back through the plan by which the screenshot was resized. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from vlmkit.preprocess.geometry import ImagePlan, Render

Coordinates = Literal["thousandths", "pixels"]
"""Of the view that the model sees: a thousandth of its width or height, or one of its pixels."""

ARGUMENTS: dict[str, tuple[str, ...]] = {
    "click": ("start_box",),
    "left_double": ("start_box",),
    "right_single": ("start_box",),
    "drag": ("start_box", "end_box"),
    "scroll": ("start_box", "end_box", "direction"),
    "hotkey": ("key",),
    "type": ("content",),
    "wait": (),
    "finished": ("content",),
    "call_user": (),
    "long_press": ("start_box", "time"),
    "open_app": ("app_name",),
    "press_home": (),
    "press_back": (),
}
"""The published actions on computers and on phones, and what may be said of each. On a phone a scroll ends somewhere; with a mouse it
has a direction."""
POINTED = ("click", "left_double", "right_single", "drag", "long_press")
"""Actions that are done somewhere."""

_ALIASES = {"point": "start_box", "start_point": "start_box", "end_point": "end_box"}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_CALL = re.compile(r"\s*(\w+)\(\s*")
_ARGUMENT = re.compile(r"(\w+)\s*=\s*(['\"])")
_ENDS = re.compile(r"\s*(?:,\s*(?=\w+\s*=\s*['\"])|(\))\s*(?=\n\s*\n|$|\n\s*\w+\())")
"""Behind the quotation mark that ends a value: another argument, or the end of the call and of its paragraph."""
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_THOUGHT = re.compile(r"(?:^|\n)\s*(?:Thought|Action_Summary):\s*(.*?)(?=\s*(?:\n\s*)?Action:|\Z)", re.DOTALL)
_REFLECTION = re.compile(r"(?:^|\n)\s*Reflection:\s*(.*?)(?=\s*(?:Action_Summary|Thought|Action):|\Z)", re.DOTALL)


class ActionError(ValueError):
    """Words that are no action of the published space."""


class Point(NamedTuple):
    """Pixels of the screenshot, from its upper left corner right and down. Not rounded, and not kept inside of it."""

    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    name: str
    """A name of ARGUMENTS."""
    start: Point | None = None
    """Where it is done, or begins."""
    end: Point | None = None
    """Where a drag ends, or a scroll on a phone."""
    text: str | None = None
    """Keys of `hotkey` separated by spaces, what `type` types (a line break at its end submits it), an app's name, the answer of
    `finished`, the direction of `scroll`, the time of `long_press`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of an agent."""

    thought: str | None
    reflection: str | None
    actions: tuple[Action, ...]


def read_reply(text: str, plan: ImagePlan, coordinates: Coordinates = "thousandths") -> Reply:
    """Thought and actions of an answer about one screenshot that was resized as `plan` says: `processor.plan_image(size).plan`.

    Boxes are written (x,y), (x1,y1,x2,y2) or with brackets, between <|box_start|> and <|box_end|>, <bbox> or <point> or not; of a box with
    two corners its middle is meant. Raises ActionError for what is no action, with the words.
    """
    _, marked, called = text.rpartition("Action:")
    if not marked:
        raise ActionError(f"no 'Action:' in {_short(text)}")
    thought, reflection = _THOUGHT.search(text), _REFLECTION.search(text)
    return Reply(
        None if thought is None else thought[1].strip(),
        None if reflection is None else reflection[1].strip(),
        tuple(_action(name, arguments, plan, coordinates) for name, arguments in _calls(called)),
    )


def read_point(x: float, y: float, plan: ImagePlan, coordinates: Coordinates = "thousandths") -> Point:
    """What a model says of a place -> pixels of the screenshot."""
    render = _only(plan)
    if coordinates == "thousandths":
        x, y = x * render.canvas.width / 1000, y * render.canvas.height / 1000
    return Point(*render.to_image(x, y, plan.source))


def write_point(point: Point, plan: ImagePlan, coordinates: Coordinates = "thousandths") -> tuple[int, int]:
    """Pixels of the screenshot -> what a model says of the place, to the nearest whole number."""
    render = _only(plan)
    x, y = render.from_image(*point, plan.source)
    if coordinates == "thousandths":
        x, y = x * 1000 / render.canvas.width, y * 1000 / render.canvas.height
    return round(x), round(y)


def _only(plan: ImagePlan) -> Render:
    if len(plan.views) != 1:
        raise ActionError(
            f"points are said of one view, but the screenshot was cut into {len(plan.views)}; use an image policy of one view"
        )
    return plan.renders[0]


def _calls(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(name, arguments) of every call; what a model forgets to escape is taken as it is."""
    place, text = 0, text.strip()
    while place < len(text):
        call = _CALL.match(text, place)
        if call is None:
            raise ActionError(f"expected an action such as click(start_box='(x,y)'), got {_short(text[place:])}")
        place, arguments = call.end(), dict[str, str]()
        if text.startswith(")", place):
            place += 1
            yield call[1], arguments
            continue
        closed = None
        while closed is None:
            argument = _ARGUMENT.match(text, place)
            ends = None if argument is None else _end_of_value(text, argument.end(), argument[2])
            if argument is None or ends is None:
                raise ActionError(
                    f"expected an argument such as start_box='(x,y)' and ')' behind the last, got {_short(text[call.start() :])}"
                )
            name = _ALIASES.get(argument[1], argument[1])
            arguments[name] = _ESCAPED.sub(_unescaped, text[argument.end() : ends.start() - 1])
            place, closed = ends.end(), ends[1]
        yield call[1], arguments


def _end_of_value(text: str, place: int, quote: str) -> re.Match[str] | None:
    while (place := text.find(quote, place)) >= 0:
        escapes = len(text[:place]) - len(text[:place].rstrip("\\"))
        if escapes % 2 == 0 and (ends := _ENDS.match(text, place + 1)):
            return ends
        place += 1
    return None


def _unescaped(match: re.Match[str]) -> str:
    return {"n": "\n", "t": "\t"}.get(match[1], match[1])


def _action(name: str, arguments: dict[str, str], plan: ImagePlan, coordinates: Coordinates) -> Action:
    if name not in ARGUMENTS:
        raise ActionError(f"{name!r} is none of {', '.join(ARGUMENTS)}")
    if unknown := [argument for argument in arguments if argument not in ARGUMENTS[name]]:
        raise ActionError(f"{name} takes {', '.join(ARGUMENTS[name]) or 'nothing'}, got {', '.join(unknown)}")
    arguments = {argument: value for argument, value in arguments.items() if value}
    points = {argument: _box(arguments[argument], plan, coordinates) for argument in arguments if argument.endswith("_box")}
    if name in POINTED and "start_box" not in points:
        raise ActionError(f"{name} is done somewhere, but has no start_box")
    if name == "drag" and "end_box" not in points:
        raise ActionError("drag ends somewhere, but has no end_box")
    words = [value for argument, value in arguments.items() if argument not in points]
    return Action(name=name, start=points.get("start_box"), end=points.get("end_box"), text=words[0] if words else None)


def _box(text: str, plan: ImagePlan, coordinates: Coordinates) -> Point:
    numbers = [float(number) for number in _NUMBER.findall(text)]
    if len(numbers) not in (2, 4):
        raise ActionError(f"a box has two numbers or four, got {_short(text)}")
    x, y = numbers if len(numbers) == 2 else ((numbers[0] + numbers[2]) / 2, (numbers[1] + numbers[3]) / 2)
    return read_point(x, y, plan, coordinates)


def _short(text: str) -> str:
    shown = repr(text.strip())
    return shown if len(shown) <= 100 else f"{shown[:97]}..."
