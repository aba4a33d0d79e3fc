"""Conversations by which one template is told from another: what it does with them is what it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vlmkit.layout.laid_out import Turn


class Probe(NamedTuple):
    turns: tuple[Turn, ...]
    add_generation_prompt: bool = False


def user(*content: str | int) -> Turn:
    return Turn("user", content)


def assistant(*content: str | int) -> Turn:
    return Turn("assistant", content)


def system(*content: str | int) -> Turn:
    return Turn("system", content)


ASKED, SAID, TOLD = user(0, "What is this?"), assistant("A cat."), system("Be brief.")

_TURNS: tuple[tuple[Turn, ...], ...] = (
    (ASKED,),
    (user("What is this?"),),
    (user("Look: ", 0),),
    (user("Look: ", 0, " and say."),),
    (user(0),),
    (user(0, 1, "Compare."),),
    (user("One ", 0, " two ", 1),),
    (user("Two", "texts"),),
    (user(" padded \n"),),
    (user(0, "\n padded "), assistant(" padded \n"), user("Why?\n")),
    (user(""),),
    (ASKED, SAID),
    (ASKED, assistant("")),
    (ASKED, SAID, user("Sure?")),
    (ASKED, SAID, user("Sure?"), assistant("Yes.")),
    (ASKED, SAID, user(1, "And this?"), assistant("A dog."), user("Sure?")),
    (ASKED, assistant("This: ", 1, " one.")),
    (TOLD, ASKED),
    (TOLD, user("Hello")),
    (system(" Be brief.\n"), ASKED, SAID, user("Why?")),
    (system(""), ASKED),
    (TOLD, ASKED, SAID),
    (TOLD,),
    (TOLD, SAID),
    (user("One"), user("Two")),
    (ASKED, SAID, TOLD, user("Sure?")),
    (ASKED, TOLD),
    (TOLD, TOLD, ASKED),
    (system(0, "Be brief."), user("What is this?")),
    (SAID, ASKED),
    (ASKED, SAID, assistant("A big cat.")),
    (ASKED, SAID, SAID, user("Why?")),
)


def probes(looked_for: Iterable[str]) -> Iterator[Probe]:
    """What every template is asked, and texts of the strings that this one may look for."""
    for turns in _TURNS:
        yield Probe(turns)
        if turns[-1].role == "user":
            yield Probe(turns, add_generation_prompt=True)
    for word in looked_for:
        for text in (word, f"x{word}y", f"{word}y", f"x{word}"):
            yield Probe((ASKED, assistant(text), user(0 + 1, text)), add_generation_prompt=True)
            yield Probe((system(text), ASKED, SAID, user(text), assistant(text)))
