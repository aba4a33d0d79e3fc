"""Templates of turns as published processors write them: in Jinja. vlmkit writes its own so, and knows published ones again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from vlmkit.layout.template import Template
from vlmkit.spec import SpecError

Prompt = tuple[Template, str]
"""A template of turns, and the text after each image."""

_PROBE = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?", "content": "What is this?"}]}]
"""Pixtral's published template reads words from "content"."""


def chat_template(prompt: Prompt, placeholder: str, *, begin: bool = False, image: str | None = None, video: str | None = None) -> str:
    """The prompt in Jinja. What begins it all is left out unless `begin`: most tokenizers put that there themselves.

    image: the Jinja of an image, where it is not the placeholder and the text after it. video: that of a film, where there are any.
    """
    template, after_image = prompt
    start = _text(template.begin) if begin else ""
    if template.default_system is not None:
        words = _text(template.system[0] + template.default_system + template.system[1])
        start += f"{{% if not messages or messages[0]['role'] != 'system' %}}{words}{{% endif %}}"
    gap = _text(template.before_text)
    gap_of_items = f"{{% if message['content'] and message['content'][0]['type'] == 'text' %}}{gap}{{% endif %}}" if gap else ""
    films = f"{{% elif item['type'] == 'video' %}}{video}" if video else ""
    return (
        f"{start}{{% for message in messages %}}{_by_role(template, 0)}{{% if message['content'] is string %}}{gap}"
        f"{{{{ message['content'] }}}}{{% else %}}{gap_of_items}{{% for item in message['content'] %}}"
        f"{{% if item['type'] == 'image' %}}{image or _text(placeholder + after_image)}{films}"
        "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
        f"{_by_role(template, 1)}{{% endfor %}}{{% if add_generation_prompt %}}{_text(template.assistant[0])}{{% endif %}}"
    )


def prompt_of(processor: Any, placeholder: str, known: Iterable[Prompt], image: str | None = None) -> Prompt:
    """The known prompt that asks a question about an image as the processor does; the first where it has no template.

    Raises SpecError, with the processor's words, where none does.
    """
    prompts = list(known)
    if processor.chat_template is None:
        return _beginning(prompts[0], processor)
    asked = _asked(processor, processor.chat_template)
    for prompt in prompts:
        if _asked(processor, chat_template(prompt, placeholder, image=image)) == asked:
            return _beginning(prompt, processor)
    raise SpecError(f"the processor asks {asked!r}, which is no template of turns that vlmkit has")


def _asked(processor: Any, template: str) -> str:
    text: str = processor.apply_chat_template(_PROBE, chat_template=template, add_generation_prompt=True, tokenize=False)
    return text.removeprefix(processor.tokenizer.bos_token or "")


def _beginning(prompt: Prompt, processor: Any) -> Prompt:
    """The prompt with the tokenizer's own spelling of its first token."""
    template, after_image = prompt
    return (template.replace(begin=processor.tokenizer.bos_token or "") if template.begin else template), after_image


def _by_role(template: Template, side: int) -> str:
    answered = (template.assistant[0] + template.before_answer, template.assistant[1])
    system, user, assistant = (_text(around[side]) for around in (template.system, template.user, answered))
    return f"{{% if message['role'] == 'system' %}}{system}{{% elif message['role'] == 'user' %}}{user}{{% else %}}{assistant}{{% endif %}}"


def _text(words: str) -> str:
    return f"{{{{ {json.dumps(words)} }}}}" if words else ""
