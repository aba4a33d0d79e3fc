"""From a checkpoint's chat template to the template of a layout: a value where one does the same, else the Jinja itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from vlmkit.layout.jinja_source import Prompt, chat_template
from vlmkit.layout.jinja_template import JinjaTemplate, own_template
from vlmkit.layout.laid_out import LayoutError, Turn
from vlmkit.layout.marks import Shown, messages_of
from vlmkit.layout.probes import ASKED, SAID, Probe, assistant, probes, system, user
from vlmkit.layout.template import Template
from vlmkit.spec import SpecError

QUESTION, ANSWER, ORDER, FURTHER = "qzq", "azq", "szq", "fzq"
"""Words that no template has of its own."""


class Around(NamedTuple):
    """What a tokenizer puts around a text that is encoded by itself."""

    before: str
    behind: str


def read_template(
    source: str,
    tokenizer: Any,
    *,
    written: str,
    image: str | None = None,
    known: Iterable[tuple[Template, str]] = (),
    begin: str | None = None,
    end: str = "",
    preface: str = "",
    after_image: str = "",
) -> Prompt:
    """The template of turns that `source` is, and the text after each image.

    tokenizer: transformers' own. written: what stands for an image in the rendered text; image: the Jinja of it, where a value writes
    more than that. known: values that are tried before one is derived. begin: what stands before everything; what the tokenizer puts
    there unless given. end, preface: what the processor puts behind and before everything. after_image: of a template that knows of no
    images.

    Raises SpecError for a template that shows no words, whatever it is given.
    """
    around = added_around(tokenizer)
    bos = tokenizer.bos_token or ""
    jinja = own_template(source, tokenizer).replace(
        begin=around.before if begin is None else begin, end=end if begin is not None else around.behind
    )
    reader = _Reader(with_forms(jinja, written), written, after_image)
    begins = bool(bos) and reader.starts_with(bos)
    if not jinja.end:
        candidates = [*known, *filter(None, [reader.derived(bos)])]
        for template, after in candidates:
            value = template.replace(begin=bos if begins else jinja.begin, begin_written=begins)
            known_by_name = all(tokenizer.convert_tokens_to_ids(token) not in (None, tokenizer.unk_token_id) for token in value.specials)
            if known_by_name and reader.agrees(chat_template((value, after), written, image=image)):
                made = value.replace(preface=preface + value.preface, begin_written=begins and sets_off_first(tokenizer, bos))
                return made, after if image is None else ""
    delimiters, stop = reader.between(tokenizer)
    jinja = reader.jinja.replace(source=prefaced(preface, source), delimiters=delimiters, stop=stop)
    return jinja, after_image if "user" in jinja.strings else ""


def prefaced(preface: str, source: str) -> str:
    """A chat template behind a text."""
    return f"{{{{ {json.dumps(preface)} }}}}{source}" if preface else source


def added_around(tokenizer: Any) -> Around:
    """The special tokens that a tokenizer puts before and behind a text."""
    bare, whole = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    start = next((place for place in range(len(whole)) if whole[place : place + len(bare)] == bare), 0)
    before, behind = whole[:start], whole[start + len(bare) :]
    return Around(*("".join(tokenizer.convert_ids_to_tokens(ids)) for ids in (before, behind)))


def sets_off_first(tokenizer: Any, begin: str) -> bool:
    """Whether the first word of a string is encoded otherwise than one behind the token that begins it."""
    alone, behind = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", begin + "a"))
    return bool(behind[1:] != alone)


def with_forms(jinja: JinjaTemplate, written: str) -> JinjaTemplate:
    """The template with the forms of content in which each role's words come out of it. Raises SpecError where a user's never do."""
    asking: tuple[tuple[list[Turn], Turn, list[Turn]], ...] = (
        ([], user(QUESTION), []),
        ([user("x")], assistant(QUESTION), []),
        ([], system(QUESTION), [user("x")]),
    )
    for before, turn, behind in asking:
        role = turn.role
        items, string = (QUESTION in _shown(jinja, [*before, turn._replace(as_string=form), *behind]) for form in (False, True))
        if string and (role == "user" or "user" in jinja.strings):  # of items a language model's own may read the texts alone
            items = items and written in _shown(jinja, [*before, turn._replace(content=(0, QUESTION)), *behind])
        if role == "user" and not (items or string):
            raise SpecError("the chat template shows no words of a user's message, neither of a text nor of a list of items")
        if items != string:
            jinja = jinja.replace(items=(*jinja.items, role)) if items else jinja.replace(strings=(*jinja.strings, role))
    return jinja


def _shown(jinja: JinjaTemplate, turns: Sequence[Turn]) -> str:
    """What the template makes of a conversation; nothing where it refuses it, or writes a list of items as Python does."""
    try:
        rendered = jinja.render(messages_of([jinja.readable(turn) for turn in turns], Shown(["image"], [""]), lambda _, text: text))
    except LayoutError:
        return ""
    return "" if "'text'" in rendered else rendered


class _Reader:
    """Asks a Jinja template what it makes of conversations."""

    def __init__(self, jinja: JinjaTemplate, written: str, after_image: str) -> None:
        self.jinja, self.written = jinja, written
        self.shown = Shown(["image"] * 2, [written + after_image] * 2)

    def render(self, turns: Sequence[Turn], *, add_generation_prompt: bool = False, source: str | None = None) -> str | None:
        """None where the template refuses the conversation."""
        jinja = self.jinja if source is None else self.jinja.replace(source=source)
        turns = [jinja.readable(turn) for turn in turns]
        try:
            return jinja.render(messages_of(turns, self.shown, lambda _, text: text), add_generation_prompt=add_generation_prompt)
        except LayoutError:
            return None

    def starts_with(self, begin: str) -> bool:
        return any((self.render(turns) or "").startswith(begin) for turns in ((ASKED,), (user("Hello"),), (ASKED, SAID)))

    def agrees(self, source: str) -> bool:
        """Whether another template does the same with every probe."""
        return all(self._same(probe, source) for probe in probes(self.jinja.literals))

    def _same(self, probe: Probe, source: str) -> bool:
        theirs = self.render(probe.turns, add_generation_prompt=probe.add_generation_prompt)
        return theirs == self.render(probe.turns, add_generation_prompt=probe.add_generation_prompt, source=source)

    def derived(self, bos: str) -> tuple[Template, str] | None:
        """The value that does the same with the simplest conversations, if there is one."""
        one, two = self.render([user(QUESTION)]), self.render([user(QUESTION), user(FURTHER)])
        answered = self.render([user(QUESTION), assistant(ANSWER), user(FURTHER)])
        told = self.render([system(ORDER), user(QUESTION)])
        pictured = self.render([user(QUESTION), user(0, FURTHER)])
        asked = self.render([user(QUESTION)], add_generation_prompt=True)
        if one is None or two is None or answered is None or told is None or pictured is None or asked is None:
            return None
        try:
            begin, user_end = one.removeprefix(bos).split(QUESTION)
            user_start = _behind(two.split(QUESTION)[1].split(FURTHER)[0], user_end)
            default, told = _before(begin, user_start), told.removeprefix(bos)
            preface = default if told.startswith(default) else ""
            default, told = default.removeprefix(preface), told.removeprefix(preface)
            before_image, after_image = _behind(pictured.split(QUESTION)[1].split(FURTHER)[0], user_end).split(self.written)
            before_text = _behind(user_start, before_image)
            opened, closing = answered.split(QUESTION)[1].split(FURTHER)[0].split(ANSWER)
            prompt = _behind(asked, one)
            before_answer = _behind(_behind(_behind(opened, user_end), prompt), before_text)
            answer_end = _before(closing, user_start)
            system_start, rest = told.split(QUESTION)[0].split(ORDER)
            system_end = _before(rest, user_start)
            default_system = _before(_behind(default, system_start), system_end) if default else None
        except ValueError:
            return None
        template = Template(
            system=(system_start, system_end),
            user=(before_image, user_end),
            assistant=(prompt, answer_end),
            before_text=before_text,
            before_answer=before_answer,
            default_system=default_system,
            preface=preface,
        )
        return template, after_image

    def between(self, tokenizer: Any) -> tuple[tuple[str, ...], str]:
        """Added tokens around turns that the tokenizer does not call special, and what ends an answer."""
        turns = (user(QUESTION), assistant(ANSWER), user(FURTHER))
        rendered = self.render(turns) or self.render(turns[:2]) or self.render(turns[:1], add_generation_prompt=True) or ""
        ordinary = [str(token) for token in tokenizer.added_tokens_decoder.values() if not token.special]
        behind = rendered.partition(ANSWER)[2].partition(FURTHER)[0]
        return tuple(token for token in ordinary if token in rendered), behind


def _behind(text: str, start: str) -> str:
    if not text.startswith(start):
        raise ValueError(text)
    return text[len(start) :]


def _before(text: str, end: str) -> str:
    if not text.endswith(end):
        raise ValueError(text)
    return text[: len(text) - len(end)]
