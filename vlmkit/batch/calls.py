"""The forms in which a processor is called: conversations, one or many, or texts with images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmkit.conversation import Conversation
from vlmkit.layout.laid_out import LayoutError


def as_conversations(conversations: Any) -> list[Conversation]:
    """A single conversation is a list of messages; a batch is a list of those."""
    if not isinstance(conversations, Sequence) or isinstance(conversations, str | bytes):
        raise LayoutError(f"conversations are lists of messages, got {type(conversations).__name__}")
    if conversations and isinstance(conversations[0], Mapping):
        return [conversations]
    return list(conversations)


def from_text(text: str | Sequence[str], images: Any) -> list[Conversation]:
    """One user message a text; images one a text, or a list of lists, or any number for a single text."""
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
    return [
        [{"role": "user", "content": [*({"type": "image", "image": image} for image in group), {"type": "text", "text": words}]}]
        for words, group in zip(texts, groups, strict=True)
    ]
