"""Conversations in the ecosystem's chat format, read strictly: roles, text and images, nothing guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlmkit.layout.base import LayoutError, Turn

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
        where = f"message {number}"
        if not isinstance(message, _OBJECT) or "role" not in message or "content" not in message:
            raise LayoutError(f"{where}: expected an object with 'role' and 'content', got {_short(message)}")
        role = message["role"]
        if role not in _ROLES:
            raise LayoutError(f"{where}: role {role!r} is not one of {', '.join(_ROLES)}")
        if role == "system" and number:
            raise LayoutError(f"{where}: a system message stands first or nowhere")
        turns.append(Turn(role, tuple(_parts(message["content"], images, where))))
    return tuple(turns), images


def _parts(content: Any, images: list[Any], where: str) -> Iterator[str | int]:
    if isinstance(content, str):
        yield content
        return
    if isinstance(content, bytes) or not isinstance(content, _LIST):
        raise LayoutError(f"{where}: content is a text or a list of items, got {_short(content)}")
    for number, item in enumerate(content):
        if isinstance(item, _OBJECT) and item.get("type") == "text" and isinstance(item.get("text"), str):
            yield item["text"]
        elif isinstance(item, _OBJECT) and (image := _image(item)) is not None:
            images.append(image)
            yield len(images) - 1
        else:
            raise LayoutError(
                f"{where}, item {number}: expected {{'type': 'text', 'text': ...}} or {{'type': 'image', 'image': ...}}, got {_short(item)}"
            )


def _image(item: Message) -> Any:
    if item.get("type") == "image":
        return next((item[key] for key in _IMAGE_KEYS if item.get(key) is not None), None)
    if item.get("type") == "image_url":  # OpenAI's form
        link = item.get("image_url")
        return link.get("url") if isinstance(link, Mapping) else link
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
