"""When every frame of a film file is seen, from its packets alone: nothing is decoded, and nothing that a header states is believed.

So it is known how many frames there are, how long the film is, whether its frames are evenly spaced, and whether its end is missing.
"""

from __future__ import annotations

import functools
import math
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vlmkit.preprocess import film
from vlmkit.preprocess.film import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

INDEXED = ("mov", "matroska")
"""Formats in which going to a key frame is exact and cheap."""
COMPLETE = 0.9
"""Part of what a header states that has to be there. Headers round, and count frames that are not shown. MPEG-TS, GIF and WMV state nothing
or what FFmpeg finds itself: of these a part is a film."""


@dataclass(frozen=True, eq=False)
class FilmTimes:
    """A film's clock."""

    stamps: array[int]
    """When each frame is seen, in ticks, ascending."""
    tick: float
    """Seconds."""
    fps: float
    """Frames a second, on average where they are not evenly spaced."""
    counted: bool
    """Packets do not say when their frames are seen: frames are numbered as they come, and taken for evenly spaced."""
    keys: tuple[int, ...]
    """Numbers of the frames from which decoding may begin; empty where the file cannot go to them."""

    @property
    def total(self) -> int:
        return len(self.stamps)

    def seconds(self, index: int) -> float:
        """When a frame is seen, from the first."""
        return (self.stamps[index] - self.stamps[0]) * self.tick

    @functools.cached_property
    def even(self) -> bool:
        """Whether every frame stands within half a frame of its number / fps, whatever the ticks round to."""
        places = (np.asarray(self.stamps) - self.stamps[0]) * (self.tick * self.fps)
        return bool((abs(places - np.arange(self.total)) < 0.5).all())

    def index_at(self, time: float) -> int:
        """The number of the frame at a time: of evenly spaced ones the nearest, of others the last that is seen by then."""
        if self.even:
            return min(math.floor(time * self.fps + 0.5), self.total - 1)
        return max(0, bisect_right(self.stamps, time / self.tick + self.stamps[0] + 1e-3) - 1)

    def index_of(self, stamp: int) -> int:
        return min(bisect_left(self.stamps, stamp), self.total - 1)

    def key_before(self, index: int) -> int:
        """The number of the last key frame up to here; -1 where there is none to go to."""
        place = bisect_right(self.keys, index)
        return self.keys[place - 1] if place else -1


def read_times(name: str, container: InputContainer, stream: VideoStream) -> FilmTimes:
    """Read all packets of a file. Raises VideoError for one without frames, with more than MAX_FRAMES, or whose end is missing."""
    if stream.frames > film.MAX_FRAMES:
        raise VideoError(_too_many(name, stream.frames))
    stamps, keys, untimed, ends = array("q"), array("q"), 0, 0.0
    start = (container.start_time or 0) / 1e6
    for packet in container.demux():
        at = packet.dts if packet.pts is None else packet.pts
        if at is not None and packet.time_base:
            ends = max(ends, float((at + (packet.duration or 0)) * packet.time_base) - start)
        # Without size: the end of a stream. Discarded: before the place where an edit list says that the film begins.
        if packet.stream_index != stream.index or not packet.size or packet.is_discard:
            continue
        untimed += packet.pts is None
        stamps.append(0 if at is None else at)
        if len(stamps) > film.MAX_FRAMES:
            raise VideoError(_too_many(name, len(stamps)))
        if packet.is_keyframe and packet.pts is not None:
            keys.append(packet.pts)
    _check_complete(name, container, stream, len(stamps), ends)
    rate = next((float(each) for each in (stream.average_rate, stream.guessed_rate) if each), 0.0)
    tick = float(stream.time_base or 0)
    if untimed or tick <= 0 or len(set(stamps)) < len(stamps):
        rate = rate or film.DEFAULT_FPS
        return FilmTimes(array("q", range(len(stamps))), 1 / rate, rate, counted=True, keys=())
    stamps = array("q", sorted(stamps))
    reached = tuple(sorted(bisect_left(stamps, key) for key in keys)) if container.format.name.startswith(INDEXED) else ()
    return FilmTimes(stamps, tick, _true_rate(rate, len(stamps) - 1, (stamps[-1] - stamps[0]) * tick), counted=False, keys=reached)


def _true_rate(stated: float, gaps: int, span: float) -> float:
    """The stated frames a second, where the last frame then stands within half a frame of its place; else as counted."""
    if gaps == 0:
        return stated or film.DEFAULT_FPS
    return stated if stated and abs(gaps / stated - span) * stated < 0.5 else gaps / span


def _check_complete(name: str, container: InputContainer, stream: VideoStream, frames: int, ends: float) -> None:
    if not frames:
        raise VideoError(f"{name} has no frames, expected at least one; is it truncated?")
    # FFmpeg counts those of a GIF itself.
    stated = 0 if container.format.name == "gif" else stream.frames
    if frames < COMPLETE * stated:
        raise VideoError(f"{name} has {frames} of the {stated} frames that it states; is it truncated?")
    seconds = (container.duration or 0) / 1e6
    if ends < COMPLETE * seconds - 0.5:
        raise VideoError(f"{name} ends after {ends:.1f} of the {seconds:.1f} seconds that it states; is it truncated?")


def _too_many(name: str, frames: int) -> str:
    return f"{name} has {frames} frames or more, expected at most {film.MAX_FRAMES}; cut it into parts"
