"""Films made for tests: every frame says its number in its shade, so that what was read can be told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

STEP = 32
"""Between two of 8 shades: far more than a codec changes, or leaves unchanged."""


def frame(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Its lower quarters have the shades of its number, eights on the left and the rest on the right; the upper ones are dark and light."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, width // 2 :] = 220
    pixels[height // 2 :, : width // 2] = number // 8 % 8 * STEP
    pixels[height // 2 :, width // 2 :] = number % 8 * STEP
    return pixels


def number_of(pixels: NDArray[np.uint8]) -> int:
    """The number modulo 64 of a frame, from the middles of its lower quarters."""
    height, width = pixels.shape[:2]
    row = slice(3 * height // 4 - 2, 3 * height // 4 + 2)
    eights, rest = (round(float(pixels[row, column - 2 : column + 2].mean()) / STEP) for column in (width // 4, 3 * width // 4))
    return eights * 8 + rest


def write(
    path: Path,
    frames: int = 30,
    codec: str = "libx264",
    *,
    rate: Fraction | int = 30,
    height: int = 48,
    width: int = 64,
    pixels: str = "yuv420p",
    stamps: Sequence[int] | None = None,
    turned: tuple[int, bool, bool] | None = None,
    container: dict[str, str] | None = None,
    sound: float = 0,
    **options: str,
) -> Path:
    """A film of numbered frames. stamps: when each is seen, in milliseconds. turned: degrees and mirrorings. sound: seconds of it."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options) if frames else None
        voice = file.add_stream("aac", rate=8000) if sound else None
        if stream is not None:
            stream.height, stream.width, stream.pix_fmt = height, width, pixels
            if stamps is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            if turned is not None:
                stream.set_display_rotation(*turned)
            for number in range(frames):
                picture = av.VideoFrame.from_ndarray(frame(number, height, width), format="rgb24")
                if stamps is not None:
                    picture.pts, picture.time_base = stamps[number], Fraction(1, 1000)
                file.mux(stream.encode(picture))
            file.mux(stream.encode())
        if voice is not None:
            for part in _silence(sound):
                file.mux(voice.encode(part))
            file.mux(voice.encode())
    return path


def _silence(seconds: float) -> Iterator[av.AudioFrame]:
    for start in range(0, int(seconds * 8000), 1000):
        part = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
        part.sample_rate, part.pts = 8000, start
        yield part
