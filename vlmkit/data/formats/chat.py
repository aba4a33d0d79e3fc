"""Chat messages, the format of the ecosystem: a line of JSON a conversation, images as paths, one sample a line.

    {"messages": [{"role": "user", "content": [{"type": "image", "path": "images/1.jpg"}, {"type": "text", "text": "What?"}]},
                  {"role": "assistant", "content": "A dog."}]}

An image is a path relative to the folder (under `path`, `image` or `url`), a data: URI, or OpenAI's {"type": "image_url"}.
Read as a stream: one line is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vlmkit.conversation import Conversation
from vlmkit.data.formats import formats
from vlmkit.data.reading.places import one_file
from vlmkit.data.reading.rows import AnnotationRow, Unusable, brief, each, json_lines
from vlmkit.data.reading.urls import Fetch, decoded, fetched, is_data, is_url
from vlmkit.data.sample import Image, Rejected, Sample

_KEYS = ("path", "image", "url")


@formats.register("chat")
def read(folder: Path, *, name: str = "data.jsonl", fetch: Fetch | None = None) -> Iterator[Sample | Rejected]:
    """name: the file of conversations. fetch: gets images that are given by URL; without it their rows are rejected."""
    source = folder.name
    file = one_file(folder, name, way_out="Name the file of conversations, such as name='train.jsonl'")

    def find(item: dict[str, Any]) -> Image:
        named = named_by(item)
        if not isinstance(named, str):
            raise Unusable("row has wrong fields", f"an image is {{'type': 'image', 'path': <below the folder>}}, got {brief(item)}")
        if is_data(named):
            return decoded(named)
        return fetched(named, fetch) if is_url(named) else folder / named

    def sample(row: AnnotationRow) -> Sample:
        images: list[Image] = []

        def number(item: dict[str, Any]) -> int:
            images.append(find(item))
            return len(images) - 1

        conversation = numbered(row.many("messages"), number)
        return Sample(tuple(images), (conversation,), source, row.where)

    yield from each(source, json_lines(source, file), sample)


def named_by(item: dict[str, Any]) -> Any:
    """What an image item names, or None."""
    if item.get("type") == "image_url":
        link = item.get("image_url")
        return link.get("url") if isinstance(link, dict) else link
    return next((item[key] for key in _KEYS if item.get(key) is not None), None)


def numbered(messages: Sequence[Any], number: Callable[[dict[str, Any]], Any]) -> Conversation:
    """The conversation with each image item replaced by its number. What is no message stays, for the check of all samples to
    name; `number` may raise Unusable."""
    return [_numbered(message, number) if isinstance(message, dict) else message for message in messages]


def _numbered(message: dict[str, Any], number: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, list):
        content = [{"type": "image", "image": number(item)} if _is_image(item) else item for item in content]
    return {"role": message.get("role"), "content": content}


def _is_image(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") in ("image", "image_url")
