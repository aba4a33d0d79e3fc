"""Which frames of a film are shown: so many a second within bounds, or a number of them, evenly spread.

The rules of two programs, which agree on how many frames and differ on which: `smart_nframes` of qwen-vl-utils, whose first and last
frame are the film's (`spread="ends"`), and the video processors of transformers for Qwen2-VL and VideoLLaMA 3, which cut the film
into equal parts and take the first frame of each (`spread="starts"`).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Literal

from vlmkit.spec import Spec, SpecError


@dataclass(frozen=True, kw_only=True)
class Sampling(Spec):
    """Sampling(fps=2.0) shows 40 of the 600 frames of 20 seconds; Sampling(frames=8) shows 8 of any film that has them."""

    fps: float = 2.0
    """Frames a second that are shown."""
    frames: int | None = None
    """How many frames are shown, whatever the film's length, in place of `fps` and its bounds."""
    min_frames: int = 4
    """A shorter film shows this many, as far as it has them. Rounded up to a whole `multiple`."""
    max_frames: int = 768
    """A longer film shows this many. Rounded down to a whole `multiple`."""
    multiple: int = 2
    """The number of frames is a multiple of this: frames of a patch."""
    spread: Literal["ends", "starts"] = "ends"
    """"ends": from the first to the last frame, each the one nearest to even distances. "starts": the first frame of each of equal
    parts."""
    repeat: int = 1
    """How often each of them is shown, one right behind the other: twice, and a patch of two frames holds one moment (Tarsier2)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fps <= 0:
            raise SpecError(f"sampling.fps: expected more than 0 frames a second, got {self.fps:g}")
        if self.multiple < 1:
            raise SpecError(f"sampling.multiple: expected 1 or more, got {self.multiple}")
        if self.repeat < 1:
            raise SpecError(f"sampling.repeat: expected 1 or more, got {self.repeat}")
        if self.frames is not None and round(self.frames / self.multiple) < 1:
            raise SpecError(
                f"sampling.frames: {self.frames} frames round to no whole multiple of {self.multiple}; use {self.multiple} or more"
            )
        if self.min_frames < 1 or self._most < self._least:
            raise SpecError(
                f"sampling: expected 1 <= min_frames <= max_frames in whole multiples of {self.multiple}, got {self.min_frames} and "
                f"{self.max_frames}"
            )

    @property
    def _least(self) -> int:
        return math.ceil(self.min_frames / self.multiple) * self.multiple

    @property
    def _most(self) -> int:
        return self.max_frames // self.multiple * self.multiple

    def count(self, total: int, fps: float) -> int:
        """Frames shown of a film of `total` frames at `fps` frames a second: 40 of 600 at 30.

        A whole `multiple`; only a film of fewer frames than one `multiple` shows all that it has, and what encodes them fills up with its
        last frame (both references refuse such a film). Floating point on purpose: the seconds are total / fps, as theirs are.
        """
        if total < 1 or not 0 < fps < math.inf:
            raise ValueError(f"a film has at least one frame and more than 0 frames a second, got {total} frames at {fps:g}")
        if self.frames is not None:
            wanted = float(round(self.frames / self.multiple) * self.multiple)
        else:
            wanted = min(max(total / fps * self.fps, self._least), self._most)
        return math.floor(min(wanted, total) / self.multiple) * self.multiple or total

    def indices(self, total: int, fps: float) -> tuple[int, ...]:
        """Numbers of the frames that are shown, counted from 0, in ascending order.

        "ends" is `torch.linspace(0, total - 1, count).round()`, number for number: single precision decides where a distance ends halfway
        between two frames. "starts" is i * total // count in whole numbers. transformers takes it from a single-precision
        `torch.arange`, which for films of more than 16,000 frames may fall one frame beside it, depending on the processor.
        """
        count = self.count(total, fps)
        if self.spread == "starts":
            return tuple(number * total // count for number in range(count))
        if count == 1:
            return (0,)
        last, step = total - 1, _single((total - 1) / (count - 1))
        front = (_single(step * number) for number in range(count // 2))
        back = (_single(last - step * (count - 1 - number)) for number in range(count // 2, count))
        return tuple(round(place) for places in (front, back) for place in places)

    def times(self, total: int, fps: float) -> tuple[float, ...]:
        """When the frames that are shown are seen, in seconds from the first frame: their numbers divided by `fps`, each `repeat` times."""
        return tuple(index / fps for index in self.indices(total, fps) for _ in range(self.repeat))


def _single(value: float) -> float:
    """Rounded to single precision."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded
