"""Conversations in the ecosystem's chat format, read strictly: roles, text and images, nothing guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmkit.layout.laid_out import LayoutError, Turn

Message = Mapping[str, Any]
Conversation = Sequence[Message]
"""[{"role": "user", "content": [{"type": "image", "image": ...}, {"type": "text", "text": "..."}]}, ...]"""

_ROLES = ("system", "user", "assistant")
# What nearly all are stands first: asking an abstract class takes ten times as long.
_OBJECT, _LIST = (dict, Mapping), (list, tuple, Sequence)
_IMAGE_KEYS = ("image", "path", "url")


def read_conversation(conversation: Conversation) -> tuple[tuple[Turn, ...], list[Any]]:
    """Turns for a layout, and the images in the order in which they stand. Raises LayoutError naming message and item."""
    images: list[Any] = []
    turns = []
    if isinstance(conversation, (str, bytes)) or not isinstance(conversation, _LIST):
        raise LayoutError(f"a conversation is a list of messages, got {_short(conversation)}")
    if not conversation:
        raise LayoutError("a conversation has at least one message, got an empty list")
    for number, message in enumerate(conversation):
        if not isinstance(message, _OBJECT) or "role" not in message or "content" not in message:
            raise LayoutError(f"message {number}: expected an object with 'role' and 'content', got {_short(message)}")
        role, content = message["role"], message["content"]
        if role not in _ROLES:
            raise LayoutError(f"message {number}: role {role!r} is not one of {', '.join(_ROLES)}")
        if role == "system" and number:
            raise LayoutError(f"message {number}: a system message stands first or nowhere")
        turns.append(Turn(role, (content,) if isinstance(content, str) else _parts(content, images, number)))
    return tuple(turns), images


def _parts(content: Any, images: list[Any], message: int) -> tuple[str | int, ...]:
    """Texts of a message, and the numbers of its images, which are added to `images`."""
    if isinstance(content, bytes) or not isinstance(content, _LIST):
        raise LayoutError(f"message {message}: content is a text or a list of items, got {_short(content)}")
    parts: list[str | int] = []
    for number, item in enumerate(content):
        if isinstance(item, _OBJECT) and item.get("type") == "text" and isinstance(item.get("text"), str):
            parts.append(item["text"])
        elif isinstance(item, _OBJECT) and (image := _image(item)) is not None:
            parts.append(len(images))
            images.append(image)
        else:
            raise LayoutError(
                f"message {message}, item {number}: expected {{'type': 'text', 'text': ...}} or {{'type': 'image', 'image': ...}}, "
                f"got {_short(item)}"
            )
    return tuple(parts)


def _image(item: Message) -> Any:
    if item.get("type") == "image":
        for key in _IMAGE_KEYS:
            if item.get(key) is not None:
                return item[key]
        return None
    if item.get("type") == "image_url":  # OpenAI's form
        link = item.get("image_url")
        return link.get("url") if isinstance(link, Mapping) else link
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
