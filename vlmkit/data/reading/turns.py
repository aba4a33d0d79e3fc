"""Turns of a conversation as the ecosystem spells them, in the chat format, with each image in its place.

{"role": "user", "content": "<image>What?"}                            ms-swift
{"from": "human", "value": "<image>\nWhat?"}                           LLaVA, LLaMA-Factory's sharegpt
{"role": "user", "content": [{"type": "image"}, {"type": "text", ...}]}   TRL; the image may be named in its item
{"role": "user", "content": [{"type": "image_url", "image_url": {"url": ...}}, ...]}   OpenAI
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlmkit.conversation import Conversation
from vlmkit.data.reading.media import FILM_ITEMS, TAG, other_media
from vlmkit.data.reading.rows import Unusable, brief

Show = Callable[[Mapping[str, Any]], Any]
"""An image item -> what stands for its image, its number in a sample. A tag is an empty item. May raise Unusable."""

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_KEYS = ("path", "image", "url")
MAX_TAGS = 10_000
"""Of one message."""


def conversation(turns: Sequence[Any], show: Show) -> Conversation:
    """The turns in the chat format. Tags of the user's are images, and the line breaks around a tag belong to it; a tag of
    anybody else stays text. What is no turn stays as it is: the check of all samples names it.

    Raises Unusable for films and sounds, and what `show` raises.
    """
    return [_message(turn, number, show) if isinstance(turn, dict) else turn for number, turn in enumerate(turns)]


def named_by(item: Mapping[str, Any]) -> Any:
    """What an image item names, or None."""
    if item.get("type") == "image_url":
        link = item.get("image_url")
        return link.get("url") if isinstance(link, dict) else link
    if isinstance(item.get("base64"), str):
        return f"data:image/*;base64,{item['base64']}"
    return next((item[key] for key in _KEYS if item.get(key) is not None), None)


def _message(turn: dict[str, Any], number: int, show: Show) -> dict[str, Any]:
    role, content = turn.get("role"), turn.get("content")
    if role is None and content is None and ("from" in turn or "value" in turn):
        role, content = _ROLES.get(str(turn.get("from"))), turn.get("value")
        if role is None or not isinstance(content, str):
            want = "{'from': 'human' or 'gpt', 'value': text}"
            raise Unusable("row has wrong fields", f"turn {number}: want {want}, got {brief(turn)}")
    if isinstance(content, str) and role == "user" and TAG in content:
        content = list(_parts(content, show))
    elif isinstance(content, list):
        content = [part for item in content for part in _items(item, role, show)]
    return {"role": role, "content": content}


def _items(item: Any, role: Any, show: Show) -> Iterator[Any]:
    kind = item.get("type") if isinstance(item, dict) else None
    if kind in ("image", "image_url"):
        yield {"type": "image", "image": show(item)}
    elif kind in FILM_ITEMS:
        raise other_media(f"a message shows {brief(item)}")
    elif kind == "text" and role == "user" and isinstance(item.get("text"), str) and TAG in item["text"]:
        yield from _parts(item["text"], show)
    else:
        yield item


def _parts(text: str, show: Show) -> Iterator[dict[str, Any]]:
    if text.count(TAG) > MAX_TAGS:
        raise Unusable("sample is too large", f"a message has {text.count(TAG)} tags {TAG}, allowed are {MAX_TAGS}")
    for place, words in enumerate(text.split(TAG)):
        if place:
            yield {"type": "image", "image": show({})}
        if words := words.strip("\n"):
            yield {"type": "text", "text": words}
