"""What comes over HTTP is read within limits, asked, and told back; whoever goes away is forgotten.

What is told is an ASGI application: it is called with (scope, receive, send).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from vlmkit.serving.asking import Asking
from vlmkit.serving.batches import Batches, refusal
from vlmkit.serving.errors import RequestError
from vlmkit.serving.job import Job, Said
from vlmkit.serving.limits import Limits
from vlmkit.serving.replies import DONE, Json, Reply, event, usage_of
from vlmkit.serving.request import ChatRequest, read_request

LOG = logging.getLogger("vlmkit.serving")
Send = Callable[[Any], Awaitable[None]]
CLOSED = 499
"""A status for nobody: the client has closed the connection."""
GRACE = 5.0
"""Seconds to send an error in, once the time for the answer is over."""


async def told(request: Any, error: Exception) -> Json:
    refused = refusal(error)
    headers = {"retry-after": "1"} if refused.status == 429 else {}
    if refused.status in (408, 413):  # part of the body may still be on its way
        headers["connection"] = "close"
    return Json(refused.to_dict(), refused.status, headers)


async def told_of_path(request: Any, error: Any) -> Json:
    what = f"there is no {request.url.path} here" if error.status_code == 404 else f"{request.url.path} takes no {request.method}"
    return await told(request, RequestError(what, status=error.status_code))


class Server:
    def __init__(self, model: Any, processor: Any, name: str, limits: Limits, hosts: tuple[str, ...]) -> None:
        self.name, self.limits = name, limits
        self.asking = Asking(model, processor, limits, hosts)
        self.batches = Batches(model, processor, limits.batch)
        self.readers = ThreadPoolExecutor(2, "vlmkit-read")
        self.fetchers = ThreadPoolExecutor(8, "vlmkit-fetch")
        self.admitted = self.uploading = 0
        self._born = Reply(name).created

    async def health(self, request: Any) -> Any:
        status = "ok" if self.batches.alive else "down"
        body = {"status": status, "running": len(self.batches.running), "waiting": self.batches.waiting, "admitted": self.admitted}
        return Json(body, 200 if self.batches.alive else 503)

    def start(self) -> None:
        self.batches.start()

    def stop(self) -> None:
        self.batches.stop()
        self.readers.shutdown(wait=False, cancel_futures=True)
        self.fetchers.shutdown(wait=False, cancel_futures=True)

    async def models(self, request: Any) -> Any:
        return Json({"object": "list", "data": [self._card()]})

    async def model(self, request: Any) -> Any:
        model_name = request.path_params["name"]
        if model_name != self.name:
            raise RequestError(f"there is no model {model_name!r} here, only {self.name!r}", status=404, code="model_not_found")
        return Json(self._card())

    def _card(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": self._born, "owned_by": "vlmkit"}

    async def complete(self, request: Any) -> Any:
        try:
            body = await self._body(request)
        except GoneError:
            return Json({}, CLOSED)
        if self.admitted >= self.limits.waiting + self.limits.batch:
            raise RequestError(f"{self.admitted} requests are answered or wait already; try again", status=429, code="queue_full")
        self.admitted += 1
        answering = Answering(self, request, body)
        try:
            await answering.begin()
        except GoneError:
            answering.leave()
            return Json({}, CLOSED)
        except BaseException as error:
            answering.leave()
            if isinstance(error, Exception) and not isinstance(error, RequestError):
                LOG.exception("a request could not be read")
                raise refusal(error) from None
            raise
        return answering

    async def _body(self, request: Any) -> bytes:
        """The whole body, within its limits. A browser's page of somewhere else cannot say that it sends JSON without asking first."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RequestError("the body is JSON: send the header Content-Type: application/json")
        most = self.limits.body_bytes
        if self.uploading >= 4 * (self.limits.waiting + self.limits.batch):
            raise RequestError(f"{self.uploading} requests are being sent already; try again", status=429, code="queue_full")
        self.uploading += 1
        body = bytearray()
        size = 0
        try:
            async with asyncio.timeout(self.limits.upload_seconds):
                more = True
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise GoneError
                    piece, more = message.get("body", b""), message.get("more_body", False)
                    size += len(piece)
                    if size <= most:
                        body += piece
                    elif size > 4 * most:  # who has sent so much is not listening
                        break
        except TimeoutError:
            message = f"the body took more than {self.limits.upload_seconds:g} seconds"
            raise RequestError(message, status=408, code="timeout") from None
        finally:
            self.uploading -= 1
        if size > most:
            raise RequestError(f"the body has more than {most} bytes", status=413, code="request_too_large")
        return bytes(body)


class Answering:
    """One request from its body to its last byte: a response that is sent while it is made."""

    def __init__(self, server: Server, request: Any, body: bytes) -> None:
        self.server, self.request, self.sent = server, request, body
        self.loop = asyncio.get_running_loop()
        self.end = self.loop.time() + server.limits.seconds
        self.news: asyncio.Queue[Said | Exception] = asyncio.Queue()
        self.reply = Reply(server.name)
        self.asked: ChatRequest | None = None
        self.job: Job | None = None
        self.gone: asyncio.Task[None] | None = None
        self.left = False

    async def begin(self) -> None:
        """Everything that a request may be refused for, up to its place among those that wait."""
        server = self.server
        self.gone = asyncio.create_task(self._watch())
        body, self.sent = self.sent, b""
        self.asked = await self._within(self.loop.run_in_executor(server.readers, read_request, body, server.name, server.limits))
        del body
        files = await self._within(self.loop.run_in_executor(server.fetchers, server.asking.fetch, self.asked))
        self.job = await self._within(self.loop.run_in_executor(server.readers, server.asking.job, self.asked, files, self.tell))
        server.batches.put(self.job)

    def tell(self, news: Said | Exception) -> None:
        """Called by the thread that generates."""
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self.loop.call_soon_threadsafe(self.news.put_nowait, news)

    def leave(self) -> None:
        """Whatever became of it: nothing is generated for it any more, and its place is free."""
        if not self.left:
            self.left = True
            self.server.admitted -= 1
            if self.job is not None:
                self.job.cancelled = True
            if self.gone is not None:
                self.gone.cancel()

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        assert self.asked is not None
        try:
            await (self._stream(scope, receive, send) if self.asked.stream else self._whole(scope, receive, send))
        except GoneError:
            pass
        finally:
            self.leave()

    async def _whole(self, scope: Any, receive: Any, send: Send) -> None:
        text = ""
        try:
            while True:
                said = await self._next()
                text += said.text
                if said.finish:
                    break
        except RequestError as error:
            await self._refuse(error, scope, receive, send)
            return
        with suppress(RequestError):  # nobody reads it
            await self._within(Json(self.reply.whole(text, said.finish, self._usage()))(scope, receive, send))

    async def _stream(self, scope: Any, receive: Any, send: Send) -> None:
        """Server-sent events. What goes wrong before the first piece has a status of its own, later it is an event."""
        try:
            said = await self._next()
        except RequestError as error:
            await self._refuse(error, scope, receive, send)
            return
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await self._within(send({"type": "http.response.start", "status": 200, "headers": headers}))
        await self._send(send, self.reply.chunk({"role": "assistant", "content": ""}))
        try:
            while True:
                if said.text:
                    await self._send(send, self.reply.chunk({"content": said.text}))
                if said.finish:
                    break
                said = await self._next()
            await self._send(send, self.reply.chunk({}, said.finish))
            assert self.asked is not None
            if self.asked.include_usage:
                await self._send(send, self.reply.usage_chunk(self._usage()))
            await self._send(send, DONE)
        except RequestError as error:
            self.end = self.loop.time() + GRACE
            with suppress(RequestError):
                await self._send(send, event(error.to_dict()))
        with suppress(RequestError):
            await self._within(send({"type": "http.response.body", "body": b"", "more_body": False}))

    async def _refuse(self, error: RequestError, scope: Any, receive: Any, send: Send) -> None:
        self.end = self.loop.time() + GRACE
        with suppress(RequestError):  # nobody reads it
            await self._within((await told(self.request, error))(scope, receive, send))

    async def _send(self, send: Send, piece: bytes) -> None:
        await self._within(send({"type": "http.response.body", "body": piece, "more_body": True}))

    async def _next(self) -> Said:
        news: Said | Exception = await self._within(self.news.get())
        if isinstance(news, Exception):
            raise refusal(news)
        return news

    def _usage(self) -> dict[str, int]:
        assert self.job is not None
        return usage_of(self.job.prompt_tokens, self.job.answer_tokens)

    async def _within(self, what: Awaitable[Any]) -> Any:
        """What this gives, unless the client goes away (GoneError) or the time is over (RequestError)."""
        task = asyncio.ensure_future(what)
        waited = {task} if self.gone is None else {task, self.gone}
        try:
            await asyncio.wait(waited, timeout=max(0.0, self.end - self.loop.time()), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            if not task.done():
                task.cancel()
        if self.gone is not None and self.gone.done():
            raise GoneError
        raise RequestError(f"the answer took more than {self.server.limits.seconds:g} seconds", status=408, code="timeout")

    async def _watch(self) -> None:
        """Ends when the client has gone."""
        while (await self.request.receive())["type"] != "http.disconnect":
            pass


class GoneError(Exception):
    """The client has closed the connection."""
