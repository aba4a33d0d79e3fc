"""The turns that a tokenizer's chat template writes, as a value: for templates in which the texts around a turn depend on its role alone,
such as ChatML."""

from __future__ import annotations

from typing import Any

from vlmkit.layout.template import Template
from vlmkit.spec import SpecError

_Q, _A, _S = "qzq", "azq", "szq"
"""Words that no template has of its own."""


def template_of(tokenizer: Any) -> Template:
    """Raises SpecError where no such value writes what the chat template does."""
    added = tokenizer.bos_token if tokenizer.bos_token and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id else ""
    try:
        begin, user = _around(_rendered(tokenizer, "u"), _Q)
        again, _ = _around(_rendered(tokenizer, "uu").split(_Q, 1)[1], _Q)
        begin, user_begin = _ending(begin, again.removeprefix(user)), again.removeprefix(user)
        behind, assistant_end = _around(_rendered(tokenizer, "ua").split(_Q, 1)[1], _A)
        prompt = _rendered(tokenizer, "u", add_generation_prompt=True).split(_Q, 1)[1].removeprefix(user)
        system_begin, rest = _around(_rendered(tokenizer, "su").removeprefix(begin).split(_Q)[0], _S)
        found = Template(
            begin=begin or added,
            system=(system_begin, _ending(rest, user_begin)),
            user=(user_begin, user),
            assistant=(prompt, assistant_end),
            before_answer=behind.removeprefix(user).removeprefix(prompt),
        )
        same = all(_rendered(tokenizer, roles) == _written(found, begin, roles) for roles in ("u", "ua", "uaua", "su", "suau"))
    except (ValueError, IndexError):
        same = False
    if not same:
        raise SpecError("its chat template does not put the same texts around every turn of a role")
    return found


def _rendered(tokenizer: Any, roles: str, **options: Any) -> str:
    names, words = {"u": "user", "a": "assistant", "s": "system"}, {"u": _Q, "a": _A, "s": _S}
    messages = [{"role": names[role], "content": words[role]} for role in roles]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
    except Exception as error:  # whatever a program from elsewhere raises
        raise SpecError(f"its chat template refuses a plain conversation ({error!r})") from None


def _written(template: Template, begin: str, roles: str) -> str:
    sides = {
        "u": (template.user[0] + _Q, template.user[1]),
        "a": (template.assistant[0] + template.before_answer + _A, template.assistant[1]),
        "s": (template.system[0] + _S, template.system[1]),
    }
    return begin + "".join("".join(sides[role]) for role in roles)


def _around(text: str, word: str) -> tuple[str, str]:
    before, behind = text.split(word)
    return before, behind


def _ending(text: str, end: str) -> str:
    if not text.endswith(end):
        raise ValueError(text)
    return text[: len(text) - len(end)]
