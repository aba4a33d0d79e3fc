"""Errors in the form of OpenAI's, so that their clients raise what people expect."""

from __future__ import annotations

from typing import Any

_TYPES = {429: "rate_limit_error", 500: "server_error", 503: "server_error", 408: "timeout_error"}


class RequestError(Exception):
    """What a client is told: a status of HTTP and a sentence. param: which entry of the request it is about."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code

    def to_dict(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
