"""Conversations in the ecosystem's chat format, read strictly: roles, text, images and videos, nothing guessed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vlmkit.layout.laid_out import LayoutError, Turn
from vlmkit.preprocess.sampling import Sampling
from vlmkit.spec import SpecError

Message = Mapping[str, Any]
Conversation = Sequence[Message]
"""[{"role": "user", "content": [{"type": "image", "image": ...}, {"type": "text", "text": "..."}]}, ...]"""


class Picture(NamedTuple):
    """An image of a conversation: {"type": "image", "image": source}."""

    source: Any
    """What `preprocess.images.open_image` takes, or the number that stands for it in a data set."""


class Film(NamedTuple):
    """A video of a conversation: {"type": "video", "video": source, "fps": 30.0, "sampling": {"fps": 1.0}}."""

    source: Any
    """What `preprocess.video.open_video` takes."""
    fps: float | None = None
    """Frames a second of a list or an array of frames; None where nothing is said, and for files, which say it themselves."""
    sampling: Sampling | None = None
    """Which of its frames are shown, in place of what the model has for it."""


Medium = Picture | Film
"""What is numbered in the order in which it stands: images and videos in one sequence."""

_UNNAMED: dict[Any, Medium] = {"image": Picture(None), "video": Film(None)}
_ROLES = ("system", "user", "assistant")
# What nearly all are stands first: asking an abstract class takes ten times as long.
_OBJECT, _LIST = (dict, Mapping), (list, tuple, Sequence)
# As transformers' chat templates have them; its "base64" is the rest of a data: URI.
_IMAGE_KEYS = ("image", "path", "url")
_VIDEO_KEYS = ("video", "path", "url")


def read_conversation(conversation: Conversation, *, unnamed: bool = False) -> tuple[tuple[Turn, ...], list[Medium]]:
    """Turns for a layout, and images and videos in the order in which they stand. Raises LayoutError naming message and item.

    unnamed: {"type": "image"} and {"type": "video"} alone are places of media that are handed over apart, with None for a source.
    """
    media: list[Medium] = []
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
        turns.append(Turn(role, (content,), True) if isinstance(content, str) else Turn(role, _parts(content, media, number, unnamed)))
    return tuple(turns), media


def pictures(media: Sequence[Medium]) -> list[Any]:
    """The sources of images, where nothing but images is taken. Raises LayoutError where a video stands among them."""
    for number, medium in enumerate(media):
        if not isinstance(medium, Picture):
            raise LayoutError(f"images are taken here and no videos, got a video as number {number} of what the conversation shows")
    return [medium.source for medium in media]


def _parts(content: Any, media: list[Medium], message: int, unnamed: bool) -> tuple[str | int, ...]:
    """Texts of a message, and the numbers of its images and videos, which are added to `media`."""
    if isinstance(content, bytes) or not isinstance(content, _LIST):
        raise LayoutError(f"message {message}: content is a text or a list of items, got {_short(content)}")
    parts: list[str | int] = []
    for number, item in enumerate(content):
        if isinstance(item, _OBJECT) and item.get("type") == "text" and isinstance(item.get("text"), str):
            parts.append(item["text"])
        elif isinstance(item, _OBJECT) and (image := _image(item)) is not None:
            parts.append(len(media))
            media.append(Picture(image))
        elif isinstance(item, _OBJECT) and item.get("type") == "video" and (video := _first(item, _VIDEO_KEYS)) is not None:
            parts.append(len(media))
            media.append(_film(video, item, f"message {message}, item {number}"))
        elif unnamed and isinstance(item, _OBJECT) and item.get("type") in _UNNAMED:
            parts.append(len(media))
            media.append(_UNNAMED[item["type"]])
        else:
            raise LayoutError(
                f"message {message}, item {number}: expected {{'type': 'text', 'text': ...}}, {{'type': 'image', 'image': ...}} or "
                f"{{'type': 'video', 'video': ...}}, got {_short(item)}"
            )
    return tuple(parts)


def _film(source: Any, item: Message, place: str) -> Film:
    fps, sampling = item.get("fps"), item.get("sampling")
    if fps is not None:
        if isinstance(source, (str, bytes, os.PathLike)):
            raise LayoutError(
                f"{place}: a video file states its frames a second itself, got 'fps': {_short(fps)}; to choose how many frames "
                f"a second are shown, write 'sampling': {{'fps': {_short(fps)}}}"
            )
        if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < math.inf:
            raise LayoutError(f"{place}: 'fps' is a number of frames a second above 0, got {_short(fps)}")
        fps = float(fps)
    if sampling is not None and not isinstance(sampling, Sampling):
        if not isinstance(sampling, _OBJECT):
            raise LayoutError(f"{place}: 'sampling' is an object such as {{'fps': 1.0}} or {{'frames': 8}}, got {_short(sampling)}")
        try:
            sampling = Sampling.from_dict(dict(sampling), "sampling")
        except SpecError as error:
            raise LayoutError(f"{place}: {error}") from None
    return Film(source, fps, sampling)


def _image(item: Message) -> Any:
    if item.get("type") == "image":
        found = _first(item, _IMAGE_KEYS)
        if found is None and isinstance(item.get("base64"), str):
            return f"data:image/*;base64,{item['base64']}"
        return found
    if item.get("type") == "image_url":  # OpenAI's form
        link = item.get("image_url")
        return link.get("url") if isinstance(link, Mapping) else link
    return None


def _first(item: Message, keys: tuple[str, ...]) -> Any:
    """What the item holds under the first of these keys that it has."""
    for key in keys:
        if item.get(key) is not None:
            return item[key]
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
