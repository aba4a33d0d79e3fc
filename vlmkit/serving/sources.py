"""The bytes of an image that a request names: in the request itself, or from a host that was allowed. Files are never read."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Collection
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
)

from vlmkit.serving.errors import RequestError
from vlmkit.serving.limits import Limits

PIECE = 1 << 16


def image_bytes(url: str, hosts: Collection[str], limits: Limits, param: str) -> bytes:
    """Raises RequestError. hosts: those that are asked, in small letters; with a port where it is not the scheme's own."""
    scheme = url.partition(":")[0].lower() if ":" in url[:64] else ""
    if scheme == "data":
        return _inline(url, param)
    if scheme not in ("http", "https"):
        raise RequestError(f"{param}: expected a URL that begins with data:image/...;base64, got {url[:60]!r}", param=param)
    if (host := _host(url)) not in hosts:
        raise RequestError(
            f"{param}: images of host {host!r} are not fetched here; send the image itself as data:image/...;base64,... (whoever runs the "
            "server may allow a host by --allow-host)",
            param=param,
        )
    return _fetched(url, limits, param)


def _inline(url: str, param: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise RequestError(f"{param}: expected data:image/...;base64,..., got {url[:60]!r}", param=param)
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f"{param}: the data are no valid base64", param=param) from None


def _host(url: str) -> str:
    """'HTTP://Example.org:80/a' -> 'example.org', with its port where that is not the scheme's own. Empty where there is none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    host = f"[{host}]" if ":" in host else host
    return host if port in (None, {"http": 80, "https": 443}.get(parts.scheme.lower())) else f"{host}:{port}"


class _SameHost(HTTPRedirectHandler):
    """Whoever is allowed may send on to another address of its own, and to nobody else."""

    def redirect_request(self, request: Request, *arguments: Any) -> Request | None:
        new = str(arguments[-1])
        if not new.lower().startswith(("http://", "https://")) or _host(new) != _host(request.full_url):
            raise _SentOnError(new)
        return super().redirect_request(request, *arguments)


class _SentOnError(Exception):
    pass


def _fetched(url: str, limits: Limits, param: str) -> bytes:
    """What an allowed host sends, bounded in bytes and in time. No handler for files or for proxies of the environment is there."""
    opener = OpenerDirector()
    for handler in (HTTPHandler(), HTTPSHandler(), _SameHost(), HTTPDefaultErrorHandler(), HTTPErrorProcessor()):
        opener.add_handler(handler)
    host, end = _host(url), time.monotonic() + limits.fetch_seconds
    try:
        request = Request(url, headers={"User-Agent": "vlmkit", "Accept": "image/*"})
        with opener.open(request, timeout=limits.fetch_seconds) as answer:
            pieces, size = [], 0
            while piece := answer.read1(PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > limits.body_bytes:
                    raise RequestError(f"{param}: more than {limits.body_bytes} bytes", status=413, param=param, code="request_too_large")
                if time.monotonic() > end:
                    raise TimeoutError
            return b"".join(pieces)
    except TimeoutError:
        message = f"{param}: {host!r} took more than {limits.fetch_seconds:g} seconds"
        raise RequestError(message, status=408, param=param, code="timeout") from None
    except _SentOnError as sent:
        raise RequestError(f"{param}: {host!r} sends on to {str(sent)[:60]!r}, which is not followed", param=param) from None
    except HTTPError as error:
        raise RequestError(f"{param}: {host!r} answers {error.code}", param=param) from None
    except (OSError, HTTPException, ValueError) as error:
        raise RequestError(f"{param}: nothing came from {host!r} ({type(error).__name__})", param=param) from None
