"""The chat template of a published processor as a layout's template."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vlmkit.layout.jinja_source import Prompt, chat_template
from vlmkit.layout.reading import added_around, read_template
from vlmkit.layout.template import Template
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor


def prompt_of(
    processor: Any,
    written: str,
    known: Iterable[tuple[Template, str]],
    image: str | None = None,
    *,
    begin: str | None = None,
    end: str = "",
    preface: str = "",
) -> Prompt:
    """The template of turns of a processor, or of its tokenizer, and the text after each image, as `read_template` reads them; the first
    known one where neither has a template. preface: text that the processor puts before every conversation. Raises SpecError for a
    template that shows no words."""
    source = processor.chat_template or processor.tokenizer.chat_template
    if isinstance(source, dict):
        if "default" not in source:
            raise SpecError(f"the processor has the chat templates {', '.join(source)}, but none that is called 'default'")
        source = source["default"]
    values = list(known)
    if source is None:
        template, after_image = values[0]
        own = processor.tokenizer.bos_token or ""
        return template.replace(begin=own if template.begin else "", preface=preface), after_image
    return read_template(
        source,
        processor.tokenizer,
        written=written,
        image=image,
        known=values,
        begin=begin,
        end=end,
        preface=preface,
        after_image=values[0][1] if values else "",
    )


def source_of(processor: VLMProcessor, *, image: str | None = None) -> str:
    """The chat template of a processor in Jinja. What begins it all is written there where the tokenizer does not put it there itself.
    image: the Jinja of an image, where that is more than what stands for it and the text after it.

    Raises SpecError where the tokenizer begins texts with something that the template does not begin with."""
    layout = processor.spec.layout
    template, added = layout.template, added_around(processor.tokenizer).before
    if isinstance(template, Template) and added and added != template.begin:
        raise SpecError(
            f"the tokenizer begins every text with {added!r}, but the template with {template.begin!r}; bring a tokenizer that adds no "
            "special tokens, or a template that begins so"
        )
    picture, *films = layout.written
    return chat_template(
        (template, layout.after_image),
        picture,
        begin=not added,
        image=image,
        video="".join(f"{{{{ {json.dumps(film + layout.after_image)} }}}}" for film in films) or None,
    )
