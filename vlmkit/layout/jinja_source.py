"""A template of turns that is a value, written as published processors write theirs: in Jinja."""

from __future__ import annotations

import json

from vlmkit.layout.jinja_template import JinjaTemplate
from vlmkit.layout.template import Template

Prompt = tuple[Template | JinjaTemplate, str]
"""A template of turns, and the text after each image."""


def chat_template(prompt: Prompt, placeholder: str, *, begin: bool = False, image: str | None = None, video: str | None = None) -> str:
    """The prompt in Jinja; what is in Jinja already stays as it is, but for lists of items where it reads strings.

    begin: whether what begins it all is written too, where the template does not say that it is; most tokenizers put that there
    themselves. image: the Jinja of an image, where it is not the placeholder and the text after it. video: that of a film, where there
    are any.
    """
    template, after_image = prompt
    if isinstance(template, JinjaTemplate):
        return _flattening(template, placeholder + after_image) + template.source
    start = _text(template.begin) if begin or template.begin_written else ""
    start += _text(template.preface)
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


def _flattening(template: JinjaTemplate, image: str) -> str:
    """Jinja that makes strings of lists of items, for the roles of which the template reads nothing else; nothing where there are none."""
    if not template.strings:
        return ""
    return (
        "{%- set flat = namespace(messages=[]) -%}{%- for m in messages -%}"
        f"{{%- if m.content is string or m.role not in {json.dumps(template.strings)} -%}}"
        "{%- set flat.messages = flat.messages + [m] -%}"
        "{%- else -%}{%- set words = namespace(text='') -%}{%- for c in m.content -%}"
        f"{{%- set words.text = words.text + ({json.dumps(image)} if c.type == 'image' else c.text) -%}}"
        "{%- endfor -%}{%- set flat.messages = flat.messages + [dict(role=m.role, content=words.text)] -%}{%- endif -%}{%- endfor -%}"
        "{%- set messages = flat.messages -%}"
    )


def _by_role(template: Template, side: int) -> str:
    answered = (template.assistant[0] + template.before_answer, template.assistant[1])
    system, user, assistant = (_text(around[side]) for around in (template.system, template.user, answered))
    return f"{{% if message['role'] == 'system' %}}{system}{{% elif message['role'] == 'user' %}}{user}{{% else %}}{assistant}{{% endif %}}"


def _text(words: str) -> str:
    return f"{{{{ {json.dumps(words)} }}}}" if words else ""
