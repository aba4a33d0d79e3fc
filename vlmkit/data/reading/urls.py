"""Images that a row names by URL. They are fetched only by a function that the caller hands in, such as `download`:

    reader = functools.partial(vlmkit.formats["pixmo_cap"], fetch=download)

Without one a row whose image is not on disk is rejected. For millions of URLs download first, with a tool made for that.
"""

from __future__ import annotations

import binascii
import urllib.request
from collections.abc import Callable

from vlmkit.data.reading.rows import Unusable, brief

Fetch = Callable[[str], bytes]
"""The bytes at a URL; whatever it raises means that the image cannot be had."""

MAX_BYTES = 1 << 26
TIMEOUT = 20
"""Seconds."""


def download(url: str) -> bytes:
    """The bytes at an http or https URL, 64 MiB at most. Raises ValueError, OSError."""
    if not is_url(url):
        raise ValueError(f"expected http:// or https://, got {brief(url)}")
    request = urllib.request.Request(url, headers={"User-Agent": "vlmkit"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        data: bytes = answer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return data


def fetched(url: str, fetch: Fetch | None) -> bytes:
    """Raises Unusable where nobody asked for URLs, or this one cannot be had."""
    if fetch is None:
        raise Unusable("image is a URL", f"{brief(url)} is not fetched; download the images, or pass fetch=")
    try:
        data = fetch(url)
    except Exception as error:
        raise Unusable("image cannot be fetched", f"{brief(url)}: {type(error).__name__}: {error}") from None
    if not isinstance(data, bytes):
        raise Unusable("image cannot be fetched", f"{brief(url)}: expected bytes, fetch gave {brief(data)}")
    return data


def is_url(name: str) -> bool:
    return name[:8].lower().startswith(("http://", "https://"))


def is_data(name: str) -> bool:
    return name[:5].lower() == "data:"


def decoded(uri: str) -> bytes:
    """The bytes in a `data:` URI. Raises Unusable where it is no base64."""
    comma = uri.find(",")
    try:
        if comma >= 0 and uri[max(0, comma - 7) : comma].lower() == ";base64":
            return binascii.a2b_base64(uri[comma + 1 :], strict_mode=True)
    except ValueError:  # binascii.Error is one
        pass
    raise Unusable("image is no base64", f"expected data:image/...;base64,..., got {brief(uri)}")
