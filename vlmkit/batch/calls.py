"""The forms in which a processor is called: conversations, one or many, or texts with images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vlmkit.conversation import Conversation, Medium, Picture, read_conversation
from vlmkit.layout.laid_out import LayoutError, Turn


class Row(NamedTuple):
    """One row of a batch."""

    said: tuple[Turn, ...] | str
    """Turns, or a whole prompt that is trusted."""
    media: list[Medium]


class Call(NamedTuple):
    """What a processor is called with."""

    rows: list[Row]
    add_generation_prompt: bool
    continue_final_message: bool

    @property
    def generates(self) -> bool:
        """Whether rows end where generation begins."""
        return self.add_generation_prompt or self.continue_final_message


def read_call(
    conversations: Any,
    text: Any,
    images: Any,
    *,
    trusted: bool | None,
    placeholder: str,
    add_generation_prompt: bool | None,
    continue_final_message: bool,
) -> Call:
    """Raises LayoutError for arguments that do not go together, and naming message and item of a conversation that does not read."""
    if (conversations is None) == (text is None) or (conversations is not None and images is not None):
        raise LayoutError("pass either conversations, which hold their images, or text with or without images")
    if continue_final_message and (text is not None or add_generation_prompt):
        raise LayoutError(
            "continue_final_message=True goes on with the last message of a conversation; leave text and add_generation_prompt out"
        )
    if trusted:
        if text is None:
            raise LayoutError("trusted=True is said of text=, a whole prompt; conversations are laid out by the chat template")
        return Call([Row(words, [Picture(image) for image in group]) for words, group in _with_images(text, images)], True, False)
    read = [read_conversation(row) for row in (as_conversations(conversations) if text is None else _asked(text, images, placeholder))]
    if add_generation_prompt is None:
        add_generation_prompt = not continue_final_message and all(turns[-1].role == "user" for turns, _ in read)
    return Call([Row(turns, media) for turns, media in read], add_generation_prompt, continue_final_message)


def as_conversations(conversations: Any) -> list[Conversation]:
    """A single conversation is a list of messages; a batch is a list of those."""
    if not isinstance(conversations, Sequence) or isinstance(conversations, str | bytes):
        raise LayoutError(f"conversations are lists of messages, got {type(conversations).__name__}")
    if conversations and isinstance(conversations[0], Mapping):
        return [conversations]
    return list(conversations)


def _asked(text: str | Sequence[str], images: Any, placeholder: str) -> list[Conversation]:
    """One user message a text. A text that spells the place of an image may be a whole prompt, and may be what somebody typed: it is
    refused."""
    pairs = _with_images(text, images)
    if any(isinstance(words, str) and placeholder in words for words, _ in pairs):
        raise LayoutError(
            f"the text holds {placeholder!r}: if it is a whole prompt of yours, pass trusted=True, or set the "
            "processor's trusts_text where a library passes it; a question is passed without either, and a conversation may say anything"
        )
    return [
        [{"role": "user", "content": [*({"type": "image", "image": image} for image in group), {"type": "text", "text": words}]}]
        for words, group in pairs
    ]


def _with_images(text: str | Sequence[str], images: Any) -> list[tuple[str, list[Any]]]:
    """Images one a text, or a list of lists, or any number for a single text."""
    texts = [text] if isinstance(text, str) else list(text)
    if images is None:
        groups: list[list[Any]] = [[] for _ in texts]
    elif not isinstance(images, list | tuple):
        groups = [[images]]
    elif len(texts) == 1 and not (images and isinstance(images[0], list | tuple)):
        groups = [list(images)]
    else:
        groups = [list(group) if isinstance(group, list | tuple) else [group] for group in images]
    if len(groups) != len(texts):
        raise LayoutError(f"{len(texts)} text(s), but images for {len(groups)}; give one image, or a list of images, for each text")
    return list(zip(texts, groups, strict=True))
