"""What a server takes, so that nobody takes it all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    batch: int = 8
    """Questions that are answered together."""
    waiting: int = 64
    """Questions that wait, beside those that are answered; further ones are told to come back (429)."""
    body_bytes: int = 32 << 20
    """Of a request, images in base64 among them (413)."""
    images: int = 16
    """Of a request."""
    image_pixels: int = 50_000_000
    """Height times width of an image, which is read from its header before anything is decoded (413)."""
    characters: int = 1_000_000
    """Of all texts of a request, before anybody counts their tokens."""
    answer_tokens: int = 1024
    """Of an answer; what `max_tokens` may ask for."""
    seconds: float = 300.0
    """From the whole request to the end of its answer (408)."""
    upload_seconds: float = 60.0
    """For the body of a request (408)."""
    fetch_seconds: float = 20.0
    """For an image of an allowed host (408)."""
