"""The body of a chat completion, read strictly: what is not understood is refused, since an answer would pretend that it was heeded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from vlmkit.registry import suggestion
from vlmkit.serving.errors import RequestError
from vlmkit.serving.limits import Limits


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """What is asked, and how it is to be answered."""

    messages: list[dict[str, Any]]
    """A conversation of vlmkit's; an image is {"type": "image", "image": URL} as it was sent."""
    images: list[str]
    """These URLs, in the order in which they stand."""
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False


def read_request(body: bytes, model: str, limits: Limits) -> ChatRequest:
    """Raises RequestError, naming the entry."""
    try:
        data = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise RequestError("the body is no JSON") from None
    if not isinstance(data, dict):
        raise RequestError(f"the body is an object with 'model' and 'messages', got {_short(data)}")
    given = {name: value for name, value in data.items() if value is not None}
    for name, value in given.items():
        if name in _WITHOUT_EFFECT:
            _check_without_effect(name, value)
        elif name not in _KNOWN:
            near = suggestion(name, _KNOWN).split("known:")[0].strip()
            raise RequestError(f"{name!r} is not supported here" + (f"; {near}" if near else ""), param=name, code="unknown_parameter")
    for name in ("model", "messages"):
        if name not in given:
            _refuse(name, "it is missing")
    if given["model"] != model:
        message = f"there is no model {_short(given['model'])} here, only {model!r}"
        raise RequestError(message, status=404, param="model", code="model_not_found")
    tokens = [given[name] for name in ("max_completion_tokens", "max_tokens") if name in given]
    if len(tokens) == 2 and tokens[0] != tokens[1]:
        _refuse("max_tokens", f"it is {_short(tokens[1])} and max_completion_tokens {_short(tokens[0])}; give one of them")
    messages, images = _messages(given["messages"], limits)
    options = given.get("stream_options", {})
    if not isinstance(options, dict) or options.keys() - {"include_usage"}:
        _refuse("stream_options", f"expected {{'include_usage': true}}, got {_short(options)}")
    return ChatRequest(
        messages=messages,
        images=images,
        max_tokens=_whole("max_tokens", tokens[0], 1, limits.answer_tokens) if tokens else None,
        temperature=_number(given, "temperature", 1.0, 0.0, 2.0),
        top_p=_number(given, "top_p", 1.0, 0.0, 1.0),
        seed=_whole("seed", given["seed"], -(2**63), 2**63 - 1) if "seed" in given else None,
        stop=_stops(given.get("stop", [])),
        stream=_flag("stream", given.get("stream", False)),
        include_usage=_flag("stream_options.include_usage", options.get("include_usage") or False),
    )


_KNOWN = {
    *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "stream", "stream_options"),
}
_WITHOUT_EFFECT: dict[str, Callable[[Any], bool]] = {
    "n": lambda value: value == 1 and value is not True,
    "frequency_penalty": lambda value: value == 0,
    "presence_penalty": lambda value: value == 0,
    "logprobs": lambda value: value is False,
    "logit_bias": lambda value: value == {},
    "tools": lambda value: value == [],
    "tool_choice": lambda value: value == "none",
    "response_format": lambda value: value == {"type": "text"},
    "user": lambda value: isinstance(value, str),
}
"""Parameters that clients send with a value that changes nothing; any other value is refused."""
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MOST_STOPS = 4


def _check_without_effect(name: str, value: Any) -> None:
    if not _WITHOUT_EFFECT[name](value):
        raise RequestError(f"{name!r} is not supported here; leave it out, got {_short(value)}", param=name, code="unsupported_value")


def _messages(messages: Any, limits: Limits) -> tuple[list[dict[str, Any]], list[str]]:
    if not isinstance(messages, list) or not messages:
        _refuse("messages", f"expected a list of at least one message, got {_short(messages)}")
    images: list[str] = []
    read = [_message(message, f"messages[{number}]", images) for number, message in enumerate(messages)]
    characters = sum(len(item.get("text", "")) for message in read for item in message["content"] if isinstance(item, dict))
    characters += sum(len(message["content"]) for message in read if isinstance(message["content"], str))
    if characters > limits.characters:
        message = f"messages: the texts have {characters} characters, at most {limits.characters} are taken"
        raise RequestError(message, status=413, param="messages", code="request_too_large")
    if len(images) > limits.images:
        message = f"messages: {len(images)} images, at most {limits.images} are taken"
        raise RequestError(message, status=413, param="messages", code="too_many_images")
    return read, images


def _message(message: Any, place: str, images: list[str]) -> dict[str, Any]:
    """One of vlmkit's messages; its images are added to `images`."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str) or message["role"] not in _ROLES:
        _refuse(place, f"expected an object with 'role' (one of {', '.join(_ROLES)}) and 'content', got {_short(message)}")
    if more := [name for name, value in message.items() if name not in ("role", "content") and value is not None]:
        _refuse(f"{place}.{more[0]}", "not supported here")
    content, role = message.get("content"), _ROLES[message["role"]]
    if isinstance(content, str):
        return {"role": role, "content": content}
    if not isinstance(content, list) or not content:
        _refuse(f"{place}.content", f"expected a text or a list of items, got {_short(content)}")
    items = []
    for number, item in enumerate(content):
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "text" and isinstance(item.get("text"), str):
            items.append({"type": "text", "text": item["text"]})
        elif kind == "image_url":
            images.append(_url(item, f"{place}.content[{number}]"))
            items.append({"type": "image", "image": images[-1]})
        else:
            expected = "{'type': 'text', 'text': ...} or {'type': 'image_url', 'image_url': {'url': ...}}"
            _refuse(f"{place}.content[{number}]", f"expected {expected}, got {_short(item)}")
    return {"role": role, "content": items}


def _url(item: Mapping[str, Any], place: str) -> str:
    """`detail` is OpenAI's wish for their own models: what an image becomes here is the model's policy."""
    link = item.get("image_url")
    url = link.get("url") if isinstance(link, dict) else None
    if not isinstance(link, dict) or not isinstance(url, str):
        _refuse(f"{place}.image_url", f"expected {{'url': ...}}, got {_short(link)}")
    if more := [name for name in link if name not in ("url", "detail")]:
        _refuse(f"{place}.image_url.{more[0]}", "not supported here")
    if link.get("detail", "auto") not in ("auto", "low", "high", None):
        _refuse(f"{place}.image_url.detail", f"expected 'auto', 'low' or 'high', got {_short(link['detail'])}")
    return url


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(text, str) and text for text in stops):
        _refuse("stop", f"expected a text, or a list of at most {MOST_STOPS} texts, none of them empty, got {_short(stop)}")
    return tuple(stops)


def _number(given: Mapping[str, Any], name: str, otherwise: float, least: float, most: float) -> float:
    value = given.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not least <= value <= most:
        _refuse(name, f"expected a number from {least:g} to {most:g}, got {_short(value)}")
    return float(value)


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        _refuse(name, f"expected a whole number from {least} to {most}, got {_short(value)}")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        _refuse(name, f"expected true or false, got {_short(value)}")
    return value


def _refuse(param: str, reason: str) -> NoReturn:
    raise RequestError(f"{param}: {reason}", param=param)


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
