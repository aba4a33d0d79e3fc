"""Opening films: a file, or frames that somebody else cut, becomes a `Video` that gives upright RGB frames at chosen times.

A film is never whole in memory: `Video.at` gives one frame after the other and keeps none. Reading files is in `film_file.py`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vlmkit.preprocess.film import DEFAULT_FPS, MAX_FRAMES, MAX_PIXELS, too_large
from vlmkit.preprocess.film import Video as Video
from vlmkit.preprocess.film import VideoError as VideoError
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.image_errors import ImageError, describe
from vlmkit.preprocess.images import Pixels, decode, image_size
from vlmkit.preprocess.sampling import Sampling


class Frames(Video):
    """Frames in a list or an array, each of which `open_image` takes. They are opened when they are asked for."""

    def __init__(self, source: Sequence[Any], fps: float | None, max_pixels: int) -> None:
        name = _described(source)
        if len(source) == 0:
            raise VideoError(f"{name} has no frames, expected at least one")
        if len(source) > MAX_FRAMES:
            raise VideoError(f"{name} has {len(source)} frames, expected at most {MAX_FRAMES}; cut it into parts")
        self.name, self.source = name, source
        self.max_pixels = max_pixels
        self.all_shown = fps is None
        """Nothing is said of their time: they are the frames to show."""
        super().__init__(name, self._open(0, image_size), len(source), DEFAULT_FPS if fps is None else fps)
        if self.size.pixels > max_pixels:
            raise VideoError(too_large(name, self.size, max_pixels))

    def shown(self, sampling: Sampling) -> tuple[float, ...]:
        if self.all_shown:
            return tuple(number / self.fps for number in range(self.total))
        return super().shown(sampling)

    def at(self, times: Sequence[float]) -> Iterator[Pixels]:
        self.check_times(times)
        for time in times:
            number = min(math.floor(time * self.fps + 0.5), self.total - 1)
            frame: Pixels = self._open(number, lambda source: decode(source, max_pixels=self.max_pixels))
            size = Size(*frame.shape[:2])
            if size != self.size:
                raise VideoError(f"frame {number} of {self.name} is {size}, but the first is {self.size} (height x width); resize them")
            yield frame

    def _open(self, number: int, how: Any) -> Any:
        try:
            return how(self.source[number])
        except ImageError as error:
            raise VideoError(f"frame {number} of {self.name}: {error}") from None


def open_video(source: Any, *, fps: float | None = None, max_pixels: int = MAX_PIXELS) -> Video:
    """The film behind

    - a path (str or PathLike) of a file that `film_file.CONTAINERS` names; URLs are not fetched;
    - a list of frames, each of which `open_image` takes (PIL images, arrays, paths, bytes), all of one size;
    - an array or tensor (F, H, W, 3) of uint8.

    fps: frames a second of a list or array, by which a sampling chooses among them. Without it they are taken for frames that were
    chosen already: all are shown, and seen DEFAULT_FPS a second. A file states its own. Raises VideoError for everything else, and
    for broken or truncated files, those without pictures, and frames of more than `max_pixels`.
    """
    if fps is not None and not (isinstance(fps, int | float) and 0 < fps < math.inf):
        raise VideoError(f"the frames a second of {_described(source)} are a number above 0, got {fps!r}")
    if isinstance(source, str | os.PathLike):
        if fps is not None:
            raise VideoError(f"{describe(source)} is a file, which states its frames a second itself; leave out fps={fps:g}")
        from vlmkit.preprocess.film_file import FilmFile

        return FilmFile(source, max_pixels)
    if isinstance(source, list | tuple) or getattr(source, "ndim", None) == 4:
        return Frames(source, fps, max_pixels)
    hint = "; a picture is an item of type 'image'" if isinstance(source, Image.Image | np.ndarray | bytes) else ""
    raise VideoError(f"{describe(source)} is no film, expected a path, a list of frames or an array (F, H, W, 3){hint}")


def _described(source: Any) -> str:
    return f"a list of {len(source)} frames" if isinstance(source, list | tuple) else describe(source)
