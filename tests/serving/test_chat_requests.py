"""A body is read strictly, and what is not understood is named."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from vlmkit.serving.errors import RequestError
from vlmkit.serving.limits import Limits
from vlmkit.serving.request import ChatRequest, read_request

HELLO = [{"role": "user", "content": "Hello"}]
LINK = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}}


def read(limits: Limits | None = None, **entries: Any) -> ChatRequest:
    body = {"model": "tiny", "messages": HELLO} | entries
    return read_request(json.dumps({name: value for name, value in body.items() if value is not ...}).encode(), "tiny", limits or Limits())


def test_what_is_left_out_is_as_openai_has_it() -> None:
    request = read()
    assert (request.temperature, request.top_p, request.seed, request.stop, request.stream) == (1.0, 1.0, None, (), False)
    assert request.max_tokens is None
    assert request.messages == [{"role": "user", "content": "Hello"}]


def test_everything_that_is_understood() -> None:
    content = [{"type": "text", "text": "What?"}, LINK]
    request = read(
        messages=[{"role": "developer", "content": "Be brief."}, {"role": "user", "content": content}],
        max_completion_tokens=7,
        temperature=0,
        top_p=0.5,
        seed=-3,
        stop="END",
        stream=True,
        stream_options={"include_usage": True},
        n=1,
        frequency_penalty=0.0,
        logprobs=False,
        tools=[],
        response_format={"type": "text"},
        user="somebody",
        logit_bias=None,
    )
    assert [message["role"] for message in request.messages] == ["system", "user"]
    assert request.images == ["data:image/png;base64,AAAA"]
    assert request.messages[1]["content"][1] == {"type": "image", "image": "data:image/png;base64,AAAA"}
    told = (request.max_tokens, request.temperature, request.top_p, request.seed, request.stop, request.stream, request.include_usage)
    assert told == (7, 0.0, 0.5, -3, ("END",), True, True)


@pytest.mark.parametrize(
    ("entries", "status", "says"),
    [
        ({"temprature": 1}, 400, "'temprature' is not supported here; did you mean 'temperature'?"),
        ({"best_of": 2}, 400, "'best_of' is not supported here"),
        ({"n": 2}, 400, "'n' is not supported here; leave it out, got 2"),
        ({"logprobs": True}, 400, "'logprobs' is not supported here"),
        ({"tools": [{}]}, 400, "'tools' is not supported here"),
        ({"response_format": {"type": "json_object"}}, 400, "'response_format' is not supported here"),
        ({"model": ...}, 400, "model: it is missing"),
        ({"messages": ...}, 400, "messages: it is missing"),
        ({"model": "gpt-4o"}, 404, "there is no model 'gpt-4o' here, only 'tiny'"),
        ({"messages": []}, 400, "messages: expected a list of at least one message"),
        ({"messages": ["hello"]}, 400, "messages[0]: expected an object with 'role'"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0]: expected an object with 'role' (one of system, developer"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}, 400, "messages[0].tool_calls: not supported here"),
        ({"messages": [{"role": "user", "content": []}]}, 400, "messages[0].content: expected a text or a list of items"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, 400, "messages[0].content[0]: expected {'type': 'text'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "a"}]}]}, 400, "image_url: expected {'url': ...}"),
        ({"max_tokens": 0}, 400, "max_tokens: expected a whole number from 1 to 1024, got 0"),
        ({"max_tokens": 5000}, 400, "max_tokens: expected a whole number from 1 to 1024, got 5000"),
        ({"max_tokens": True}, 400, "max_tokens: expected a whole number"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 400, "give one of them"),
        ({"temperature": 2.5}, 400, "temperature: expected a number from 0 to 2, got 2.5"),
        ({"temperature": "1"}, 400, "temperature: expected a number from 0 to 2, got '1'"),
        ({"top_p": -0.1}, 400, "top_p: expected a number from 0 to 1"),
        ({"seed": 1.5}, 400, "seed: expected a whole number"),
        ({"stop": ["a"] * 5}, 400, "stop: expected a text, or a list of at most 4 texts"),
        ({"stop": ""}, 400, "stop: expected a text"),
        ({"stream": "yes"}, 400, "stream: expected true or false, got 'yes'"),
        ({"stream_options": {"include_cost": True}}, 400, "stream_options: expected"),
        ({"messages": [{"role": "user", "content": [LINK] * 17}]}, 413, "17 images, at most 16 are taken"),
        ({"messages": [{"role": "user", "content": "a" * 1_000_001}]}, 413, "1000001 characters, at most 1000000"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(entries: dict[str, Any], status: int, says: str) -> None:
    with pytest.raises(RequestError) as refused:
        read(**entries)
    assert says in refused.value.message
    assert refused.value.status == status
    told = refused.value.to_dict()["error"]
    assert set(told) == {"message", "type", "param", "code"}
    assert told["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'"text"', b'{"model": "tiny", "temperature": NaN}', b"[" * 100_000])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError, match="the body is"):
        read_request(body, "tiny", Limits())


def test_reading_loads_nothing_heavy() -> None:
    code = (
        "import sys, vlmkit.serving.request, vlmkit.serving.sources, vlmkit.serving.words, vlmkit.commands.serve\n"
        "print([name for name in ('torch', 'numpy', 'transformers', 'fastapi', 'uvicorn', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
