"""FastAPI around the server: addresses, errors, start and end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from vlmkit.serving.errors import RequestError
from vlmkit.serving.limits import Limits
from vlmkit.serving.server import Server, told, told_of_path

if TYPE_CHECKING:
    from fastapi import FastAPI


def build_app(model: Any, processor: Any, name: str, *, limits: Limits | None = None, hosts: tuple[str, ...] = ()) -> FastAPI:
    """The server of one model. name: what requests call it. hosts: whose images are fetched. `app.state.server` is the Server."""
    from fastapi import FastAPI, Response

    server = Server(model.eval(), processor, name, limits or Limits(), hosts)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server.start()
        yield
        server.stop()

    class Sent(Response):  # type: ignore[misc]
        """What an endpoint gives, as FastAPI takes it."""

        def __init__(self, application: Any) -> None:
            super().__init__()
            self._application = application

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self._application(scope, receive, send)

    def sent(handler: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Sent]]:
        async def endpoint(*arguments: Any) -> Sent:
            return Sent(await handler(*arguments))

        return endpoint

    app = FastAPI(title="vlmkit", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.server = server
    app.add_route("/v1/chat/completions", sent(server.complete), methods=["POST"])
    app.add_route("/v1/models", sent(server.models), methods=["GET"])
    app.add_route("/v1/models/{name:path}", sent(server.model), methods=["GET"])
    app.add_route("/health", sent(server.health), methods=["GET"])
    app.exception_handler(RequestError)(sent(told))
    for status in (404, 405):
        app.exception_handler(status)(sent(told_of_path))
    return app
