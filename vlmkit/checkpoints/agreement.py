"""Before a directory is written: its config has to describe the model, and its processor has to give vlmkit's own ids."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from vlmkit.architecture import Architecture
from vlmkit.layout.jinja_template import JinjaTemplate, own_template
from vlmkit.layout.laid_out import LayoutError, Turn
from vlmkit.layout.marks import Shown, messages_of
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor

_ASKED = (Turn("user", ("What is this?",)),)
_TOLD = (Turn("system", ("Be brief.",)), *_ASKED)
CONVERSATIONS: tuple[tuple[tuple[Turn, ...], bool], ...] = (
    (_ASKED, True),
    (_TOLD, True),
    ((*_ASKED, Turn("assistant", ("A cat.",)), Turn("user", (" Why?\n",))), True),
    ((*_TOLD, Turn("assistant", ("A cat.",))), False),
)
"""Without images, whose places are the layout's; and whether an answer is asked for."""


def refuse_disagreement(published: Any, processor: VLMProcessor) -> None:
    """Raise SpecError with a prompt that the published processor's own template and tokenizer make other ids of than the layout does."""
    template = processor.spec.layout.template
    if published.chat_template is None:
        return  # the words around turns are the processor's, and its family compared them
    if processor.spec.layout.begins_anew and processor.plain_tokenizer.sets_off_first:
        raise SpecError(
            f"{type(published).__name__} goes on with the words behind an image, but the layout encodes them as a text of its own "
            "(begins_anew), and the tokenizer tells the two apart"
        )
    if isinstance(template, JinjaTemplate) and template.end:
        return
    source = published.chat_template["default"] if isinstance(published.chat_template, dict) else published.chat_template
    for turns, asks in CONVERSATIONS:
        turns = tuple(template.readable(turn) for turn in turns) if isinstance(template, JinjaTemplate) else turns
        try:
            ours = list(processor.spec.layout.lay_out(turns, (), processor.plain_tokenizer, add_generation_prompt=asks).ids)
        except LayoutError:
            continue
        messages = messages_of(turns, Shown((), ()), lambda _, text: text)
        text = own_template(source, published.tokenizer).render(messages, add_generation_prompt=asks)
        bos = published.tokenizer.bos_token
        theirs = published.tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)))["input_ids"]
        if theirs != ours:
            raise SpecError(
                f"{type(published).__name__} would make {processor.tokenizer.decode(theirs)!r} of a conversation of which the layout makes "
                f"{processor.tokenizer.decode(ours)!r}; bring a tokenizer that begins texts as the template does"
            )


def refuse_other(published: str, architecture: Architecture, read: Architecture, no_matter: Collection[str]) -> None:
    """Raise SpecError where an architecture is another than the one that is `read` of the config that was made for it. no_matter: of the
    language model's config, what the published one does not tell, or tells elsewhere."""
    for part in ("policy", "encoder", "connector", "layout", "fusion"):
        if (ours := getattr(architecture, part)) != (theirs := getattr(read, part)):
            raise SpecError(f"{published} of these sizes has the {part} {theirs}, but this one is {ours}")
    here, there = (one.language_model.transformers_config().to_dict() for one in (architecture, read))
    if apart := next((name for name in there if name not in no_matter and there[name] != here.get(name)), None):
        raise SpecError(f"{published} has {apart} {there[apart]!r} in its language model, but here it is {here.get(apart)!r}")
