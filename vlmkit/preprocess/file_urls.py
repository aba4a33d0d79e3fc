"""Names of local files that are spelled as URLs: what qwen-vl-utils, vLLM and `Path.as_uri()` write."""

from __future__ import annotations

from urllib.parse import unquote

SCHEME = "file://"


def local_path(name: str) -> str:
    """'file:///a%20b.png' -> '/a b.png'. What follows the scheme is a path, so 'file://a.png' is one below the working directory, as
    qwen-vl-utils has it. Other names stay as they are."""
    if name[: len(SCHEME)].lower() != SCHEME:
        return name
    return unquote(name[len(SCHEME) :])
