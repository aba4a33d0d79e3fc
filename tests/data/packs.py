"""Small samples with real images, good and bad, for shards."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from vlmkit.data.sample import Rejected, Sample


def jpeg(number: int, height: int = 24, width: int = 32) -> bytes:
    """A different picture for each number."""
    file = io.BytesIO()
    colours = np.random.default_rng(number).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((width, height)).save(file, "JPEG")
    return file.getvalue()


def conversation(number: int, images: int = 1) -> list[dict]:
    shown = [{"type": "image", "image": image} for image in range(images)]
    question = {"role": "user", "content": [*shown, {"type": "text", "text": f"What is number {number}?"}]}
    return [question, {"role": "assistant", "content": "é" * (1 + number % 7)}]


def sample(number: int, source: str = "a") -> Sample:
    return Sample((jpeg(number, 20 + number % 5),), (conversation(number),), source, f"img/{number}.x")


def items(count: int) -> Iterator[Sample | Rejected]:
    """Every ninth image is cut short, every eleventh sample was rejected by its reader."""
    for number in range(count):
        found = sample(number)
        if number % 11 == 5:
            yield Rejected("a", str(number), "image is missing", f"{number}.jpg is not there")
        elif number % 9 == 4:
            yield Sample((found.images[0][:-200],), found.conversations, found.source, found.id)
        else:
            yield found
