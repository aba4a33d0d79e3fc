"""What a film is to everybody who shows it: frames of one size at times, one after the other, and what cannot be opened as one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from vlmkit.preprocess.geometry import Clip, Size
from vlmkit.preprocess.image_errors import ImageError
from vlmkit.preprocess.images import Pixels
from vlmkit.preprocess.sampling import Sampling

MAX_PIXELS = 40_000_000
"""Bound on height x width of a frame, checked against the header before anything is decoded: 8K (4320 x 7680) opens."""
MAX_FRAMES = 2_000_000
"""Bound on the frames of a film, of which 18 hours have so many at 30 a second. Of each, 8 bytes are held: when it is seen."""
DEFAULT_FPS = 2.0
"""Frames a second of a list or an array of which nothing is said, as qwen-vl-utils has it."""


class VideoError(ImageError):
    """Something that cannot be opened as a film: what it is, what was expected, the way out."""


class Video(ABC):
    """A film: how many frames of which size, how many a second, and the frames themselves."""

    def __init__(self, name: str, size: Size, total: int, fps: float) -> None:
        self.name = name
        """What a message calls it."""
        self.size = size
        """Of every frame, upright."""
        self.total = total
        """Frames of the film, of which few are shown."""
        self.fps = fps
        """Frames a second of the film; on average, where they are not evenly spaced."""

    @property
    def clip(self) -> Clip:
        return Clip(self.total / self.fps, self.fps, self.size)

    def shown(self, sampling: Sampling) -> tuple[float, ...]:
        """When the frames are seen that are shown, in seconds from the first frame."""
        return sampling.times(self.total, self.fps)

    @abstractmethod
    def at(self, times: Sequence[float]) -> Iterator[Pixels]:
        """The frame (H, W, 3) uint8 at each of these times, which ascend. Raises VideoError where one cannot be read.

        The nearest frame, where frames are evenly spaced; the frame that is being seen at that time, where they are not.
        """

    def check_times(self, times: Sequence[float]) -> None:
        """Raises ValueError for times that are no times, or not in order."""
        if not all(0 <= time < math.inf for time in times) or list(times) != sorted(times):
            raise ValueError(f"frames of {self.name} are read at ascending times in seconds from 0, got {describe_times(times)}")


def too_large(name: str, size: Size, max_pixels: int) -> str:
    return (
        f"{name} has frames of {size} = {size.pixels} pixels, expected at most {max_pixels}; make them smaller, or pass a larger "
        "max_pixels if you trust it"
    )


def describe_times(times: Sequence[float]) -> str:
    text = ", ".join(f"{time:g}" for time in times[:8])
    return text + (", ..." if len(times) > 8 else "")
