"""The kinds of conversation that every make is asked for, in the chat format that transformers' processors take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from families.tiny import picture

Conversation = list[dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """A conversation, and whether its last answer is to be continued."""

    title: str
    conversation: Conversation
    continues: bool = False
    twice: bool = False
    """Whether it is asked for without a prompt for an answer as well, where it ends with a question."""

    @property
    def asks(self) -> tuple[dict[str, bool], ...]:
        """How it is asked for: with a prompt for an answer, without one, or with its end open."""
        if self.continues:
            return ({"continue_final_message": True},)
        if self.twice or self.conversation[-1]["role"] == "assistant":
            return ({"add_generation_prompt": True}, {"add_generation_prompt": False})
        return ({"add_generation_prompt": True},)


FIRST, SECOND = ({"type": "image", "image": picture(40, 52, 0)}, {"type": "image", "image": picture(64, 33, 1)})


def message(role: str, *items: Any) -> dict[str, Any]:
    """Texts and images of a role; a text is written as an item as well."""
    return {"role": role, "content": [{"type": "text", "text": item} if isinstance(item, str) else item for item in items]}


def user(*items: Any) -> dict[str, Any]:
    return message("user", *items)


def assistant(*items: Any) -> dict[str, Any]:
    return message("assistant", *items)


def plain(role: str, text: str) -> dict[str, Any]:
    """A message whose content is a string."""
    return {"role": role, "content": text}


SYSTEM = message("system", "Answer in one word.")
TURNS = [
    user(FIRST, "What is in the image?"),
    assistant("A boat."),
    user("What is above it?"),
    assistant("The sun."),
    user("Are you sure?"),
]

KINDS: tuple[Kind, ...] = (
    Kind("words first", [user("Look at this:", FIRST, "What is in it?")], twice=True),
    Kind("image last", [user("What is this?", FIRST)]),
    Kind("two images", [user(FIRST, "Which is larger, this one or", SECOND, "that one?")]),
    Kind("three turns", TURNS, twice=True),
    Kind("system", [SYSTEM, *TURNS[:3]], twice=True),
    Kind("unicode", [user(FIRST, "¿Qué es? 你好 🙂 e\u0301 Straße\u00a0ﬁ\u200d\tx"), assistant("„Überholverbot“ 😀.")]),
    Kind("continued", [user(FIRST, "Which is larger?"), assistant("The first")], continues=True),
    Kind("only an image", [user(FIRST)]),
    Kind("only text", [user("Who are you?")], twice=True),
    Kind("answered", [user(FIRST, "Which is larger?"), assistant("The first one.")]),
    Kind("blanks", [user(FIRST, "  two   blanks \n"), assistant(" A cat. \n"), user("\n\nand\tnow ? ")], twice=True),
    Kind("strings", [plain("system", "Answer in one word."), plain("user", "Who are you?"), plain("assistant", "A model.")]),
    Kind("two questions running", [user(FIRST, "What is this?"), user("Who are you?")]),
    Kind("answer first", [assistant("I am a model."), user(FIRST, "What is this?")]),
    Kind("system in the middle", [*TURNS[:2], SYSTEM, TURNS[2]]),
    Kind("image in an answer", [user("Draw a cat."), assistant("There:", FIRST), user("Thanks.")]),
    Kind("image in the system message", [message("system", FIRST, "Answer in one word."), user("What is this?")]),
    Kind("two texts", [user(FIRST, "What is", "this?"), assistant("A", "cat.")]),
    Kind("an empty text", [user(FIRST, ""), assistant("")]),
    Kind("added words", [user(FIRST, "<think>where</think> is <box>1, 2</box>?"), assistant("<think>a cat <box> .")]),
    Kind("signs of Jinja", [user(FIRST, "{{ bos_token }}{% raw %} {# a #}"), assistant("{{ 1 + 1 }}")]),
    Kind("a later image", [user(FIRST, SECOND, "Which is larger?"), assistant("The first."), user("And of this?", FIRST)]),
    Kind("thoughts", [user(FIRST, "Why?"), assistant("<think>\nhm, a </think>\n\nSo."), user("And?"), assistant("<think>b</think> c")]),
    Kind("thoughts, continued", [user(FIRST, "Why?"), assistant("<think>\nhm\n</think>\n\nSo")], continues=True),
    Kind("continued with a blank", [user(FIRST, "Which is larger?"), assistant("The first ")], continues=True),
    Kind("continued, three turns", [*TURNS[:3], assistant("The sun, and the")], continues=True),
    Kind("continued string", [user(FIRST, "Which is larger?"), plain("assistant", "The first")], continues=True),
    Kind("continued question", [user(FIRST, "Which is")], continues=True),
)
