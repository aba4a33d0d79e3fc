"""Over HTTP: OpenAI's own client, its errors, and clients that nobody would want."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from fastapi import Request
from PIL import Image
from speaking import NAME, asked, data_url, generated, question, served, speaker, url, wait_for

from tests.tiny import picture
from vlmkit.serving.errors import RequestError
from vlmkit.serving.job import Job
from vlmkit.serving.limits import Limits

LIMITS = Limits(batch=4, waiting=8, body_bytes=1 << 20, answer_tokens=600, seconds=300.0, upload_seconds=1.0, image_pixels=1_000_000)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, Any]]:
    with served(LIMITS) as found:
        yield found


@pytest.fixture
def client(address: tuple[str, Any]) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address[0]}/v1", api_key="none", max_retries=0, timeout=200)


def complete(client: openai.OpenAI, number: int = 0, **options: Any) -> Any:
    words, image = question(number)
    messages = asked(words, None if image is None else url(image))
    return client.chat.completions.create(**({"model": NAME, "messages": messages, "temperature": 0, "max_tokens": 12} | options))


def alone(number: int = 0, max_tokens: int = 12, **options: Any) -> tuple[str, str]:
    return generated(*speaker(), *question(number), max_tokens, **options)


def said(reply: Any) -> tuple[str, str]:
    return reply.choices[0].message.content, reply.choices[0].finish_reason


def rests(server: Any) -> bool:
    return server.admitted == 0 and not server.batches.running and not server.batches.waiting


def test_openais_client_has_the_answers_of_generate(client: openai.OpenAI) -> None:
    for number in range(6):
        reply = complete(client, number)
        assert said(reply) == alone(number)
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.usage.completion_tokens == 12
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "vlmkit"


def test_openais_client_streams(client: openai.OpenAI) -> None:
    chunks = list(complete(client, 1, stream=True, stream_options={"include_usage": True}, max_tokens=20))
    *spoken, last, usage = chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in spoken)
    assert (text, last.choices[0].finish_reason) == alone(1, 20)
    assert spoken[0].choices[0].delta.role == "assistant"
    assert len(spoken) > 10
    assert len({chunk.id for chunk in chunks}) == 1
    assert (usage.choices, usage.usage.completion_tokens) == ([], 20)


def test_stops_and_draws_are_those_of_the_batch(client: openai.OpenAI) -> None:
    text, _ = alone(2, 20)
    assert said(complete(client, 2, max_tokens=20, stop=[text[5:7]])) == (text[: text.index(text[5:7])], "stop")
    drawn = [said(complete(client, 2, temperature=1.3, top_p=0.9, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    free = {said(complete(client, 2, temperature=1.5)) for _ in range(4)}
    assert len(free) > 1  # without a seed, another one each time


def test_openais_client_raises_what_people_expect(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'other' here"):
        complete(client, model="other")
    with pytest.raises(openai.BadRequestError, match="did you mean 'temperature'") as refused:
        complete(client, extra_body={"temprature": 1})
    assert (refused.value.code, refused.value.param, refused.value.type) == ("unknown_parameter", "temprature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="together") as refused:
        complete(client, messages=asked("long " * 2000))
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError, match="there is no /v1/completions here"):
        client.completions.create(model=NAME, prompt="a")


def large(width: int, height: int) -> bytes:
    """A PNG whose header says so; its pixels are zeros, and take a hundredth of a percent of what they would unpacked."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(width + 1)) for _ in range(height)) + rows.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", packed)
        + chunk(b"IEND", b"")
    )


def test_pictures_that_are_too_large_or_broken_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="10000x10000 = 100000000 pixels, at most 1000000 are taken") as refused:
        complete(client, messages=asked("What?", data_url(large(10_000, 10_000))))
    assert (refused.value.status_code, refused.value.code) == (413, "image_too_large")
    file = io.BytesIO()
    Image.fromarray(picture(90, 70)).save(file, "JPEG")
    for broken in (b"", b"no picture", file.getvalue()[:200], b"\x89PNG\r\n\x1a\n" + bytes(50)):
        with pytest.raises(openai.BadRequestError) as refused:
            complete(client, messages=asked("What?", data_url(broken)))
        assert refused.value.code == "invalid_image"
    for link in ("http://example.org/a.png", "file:///etc/passwd", "/etc/passwd"):
        with pytest.raises(openai.BadRequestError):
            complete(client, messages=asked("What?", link))
    with pytest.raises(openai.BadRequestError, match="aspect ratio"):
        complete(client, messages=asked("What?", url(picture(1, 900))))
    assert said(complete(client)) == alone()


def raw(address: str, head: str, body: bytes = b"") -> socket.socket:
    host, _, port = address.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(head.replace("\n", "\r\n").encode() + body)
    return connection


POST = "POST /v1/chat/completions HTTP/1.1\nHost: here\nContent-Type: application/json\nContent-Length: {}\n\n"


def response(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    data = b""
    while piece := connection.recv(65536):
        data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if length and len(body) >= length[0]:
            break
    connection.close()
    return int(head.split()[1]), json.loads(body)


def test_bodies_that_are_too_large_too_slow_or_of_another_type_are_refused(address: tuple[str, Any]) -> None:
    base, server = address
    status, told = response(raw(base, POST.format(2 << 20), b"x" * (2 << 20)))
    assert (status, told["error"]["code"]) == (413, "request_too_large")
    status, told = response(raw(base, POST.format(1000), b'{"model": "tiny"'))  # and then nothing
    assert (status, told["error"]["type"]) == (408, "timeout_error")
    status, told = response(raw(base, POST.format(2).replace("application/json", "text/plain"), b"{}"))
    assert (status, "Content-Type" in told["error"]["message"]) == (400, True)
    status, told = response(raw(base, POST.format(4), b"nope"))
    assert (status, told["error"]["message"]) == (400, "the body is no JSON")
    status, told = response(raw(base, "GET /v1/chat/completions HTTP/1.1\nHost: here\n\n"))
    assert status == 405
    assert set(told["error"]) == {"message", "type", "param", "code"}
    gone = raw(base, POST.format(1000), b"{")
    gone.close()
    wait_for(lambda: server.uploading == 0)
    assert rests(server)


def body(**options: Any) -> bytes:
    words, image = question(0)
    messages = asked(words, None if image is None else url(image))
    return json.dumps({"model": NAME, "messages": messages, "temperature": 0, "max_tokens": 600, **options}).encode()


@pytest.fixture
def endless(address: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The model never ends a turn by itself; the jobs that were asked."""
    server, jobs = address[1], []
    monkeypatch.setattr(server.batches, "ends", [])
    put = server.batches.put

    def remember(job: Job) -> None:
        jobs.append(job)
        put(job)

    monkeypatch.setattr(server.batches, "put", remember)
    return jobs


@pytest.mark.parametrize("stream", [False, True])
def test_a_closed_connection_ends_its_generation(address: tuple[str, Any], endless: list[Job], stream: bool) -> None:
    base, server = address
    sent = body(stream=stream)
    connection = raw(base, POST.format(len(sent)), sent)
    wait_for(lambda: endless and endless[0].answer_tokens > 3)
    connection.close()
    wait_for(lambda: rests(server))
    assert endless[0].cancelled
    assert endless[0].answer_tokens < 600


def test_who_waits_and_leaves_is_never_asked(address: tuple[str, Any], endless: list[Job]) -> None:
    base, server = address
    sent = body(stream=True)
    first = [raw(base, POST.format(len(sent)), sent) for _ in range(4)]
    wait_for(lambda: len(endless) == 4)
    later = raw(base, POST.format(len(sent)), sent)
    wait_for(lambda: len(endless) == 5)
    later.close()
    wait_for(lambda: endless[4].cancelled)
    for connection in first:
        connection.close()
    wait_for(lambda: rests(server))
    assert endless[4].answer_tokens == 0


def test_more_than_may_wait_are_told_to_come_back(address: tuple[str, Any], endless: list[Job], client: openai.OpenAI) -> None:
    base, server = address
    sent = body(stream=True)
    held = [raw(base, POST.format(len(sent)), sent) for _ in range(12)]
    wait_for(lambda: server.admitted == 12)
    with pytest.raises(openai.RateLimitError, match="try again") as refused:
        complete(client)
    assert refused.value.response.headers["retry-after"] == "1"
    assert refused.value.type == "rate_limit_error"
    for connection in held:
        connection.close()
    wait_for(lambda: rests(server))


def test_a_client_that_reads_nothing_holds_nobody_up(address: tuple[str, Any], endless: list[Job], client: openai.OpenAI) -> None:
    """Its answer is made, and lies in the buffers; the others have theirs meanwhile."""
    base, server = address
    sent = body(stream=True)
    sleeper = raw(base, POST.format(len(sent)), sent)
    wait_for(lambda: endless)
    with ThreadPoolExecutor(3) as pool:
        assert [said(reply) for reply in pool.map(lambda number: complete(client, number), range(3))] == [
            alone(number, eos_token_id=None) for number in range(3)
        ]
    wait_for(lambda: rests(server))
    assert endless[0].answer_tokens == 600
    sleeper.close()


def test_a_write_that_nobody_reads_is_given_up_when_the_time_is_over() -> None:
    async def stuck(message: Any) -> None:
        await asyncio.Event().wait()

    async def run(server: Any) -> None:
        sent = [{"type": "http.request", "body": body(stream=True, max_tokens=5), "more_body": False}]

        async def receive() -> Any:
            if not sent:
                await asyncio.Event().wait()
            return sent.pop()

        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
        with contextlib.suppress(RequestError):
            reply = await server.complete(Request(scope, receive))
            await asyncio.wait_for(reply(scope, receive, stuck), timeout=20)

    with served(Limits(seconds=1.5)) as (_, server):
        asyncio.run(run(server))
        wait_for(lambda: rests(server))  # a step that has begun is ended


def test_an_answer_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Limits(seconds=1.5, answer_tokens=5000)) as (base, server):
        monkeypatch.setattr(server.batches, "ends", [])
        monkeypatch.setattr(server.asking, "context", None)
        client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0, timeout=200)
        begun = time.monotonic()
        with pytest.raises(openai.APIStatusError, match=r"more than 1\.5 seconds") as refused:
            complete(client, max_tokens=5000)
        assert refused.value.status_code == 408
        with pytest.raises(openai.APIError, match=r"more than 1\.5 seconds"):
            for _ in complete(client, max_tokens=5000, stream=True):
                pass
        assert time.monotonic() - begun < 60
        wait_for(lambda: rests(server))
        assert said(complete(client, max_tokens=5)) == alone(0, 5, eos_token_id=None)


def test_what_breaks_inside_is_said_without_its_words(
    address: tuple[str, Any], client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = address[1]

    def broken(*arguments: Any) -> None:
        raise ValueError("secret of the server")

    with monkeypatch.context() as patch:
        patch.setattr(server.batches, "_generate", broken)
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as refused:
                complete(client, stream=stream)
            assert "secret" not in str(refused.value)
    with monkeypatch.context() as patch:
        patch.setattr(server.asking, "job", broken)
        with pytest.raises(openai.InternalServerError) as refused:
            complete(client)
        assert "secret" not in str(refused.value)
    assert said(complete(client)) == alone()
    assert rests(server)


def test_health_says_how_it_is(address: tuple[str, Any]) -> None:
    status, told = response(raw(address[0], "GET /health HTTP/1.1\nHost: here\n\n"))
    assert (status, told) == (200, {"status": "ok", "running": 0, "waiting": 0, "admitted": 0})


def test_images_of_an_allowed_host_are_fetched() -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    words, image = question(0)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")

    class Host(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(file.getvalue())

        def log_message(self, *arguments: object) -> None:
            pass

    host = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=host.serve_forever, daemon=True).start()
    name = f"127.0.0.1:{host.server_address[1]}"
    with served(hosts=(name,)) as (base, _):
        client = openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0, timeout=200)
        assert said(complete(client, messages=asked(words, f"http://{name}/a.png"))) == alone()
    host.shutdown()
