"""Films in files, read by PyAV (the libraries of FFmpeg): first when every frame is seen, then those frames that are asked for.

A file is read twice. The first time nothing is decoded (`film_times.py`). The second time frames are decoded one after the other, from the
last key frame before a wanted one where that saves decoding, and turned to RGB only where they are wanted.
"""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmkit.preprocess.file_urls import local_path
from vlmkit.preprocess.film import Video, VideoError, too_large
from vlmkit.preprocess.film_times import read_times
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.image_errors import describe, errors_of
from vlmkit.preprocess.images import Pixels

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CONTAINERS = "MP4 and MOV, Matroska and WebM, AVI, MPEG-TS and -PS, FLV, WMV, Ogg, GIF"
"""What is read; other readers of FFmpeg, some of which open further files or URLs, are never reached."""
FILM = f"a complete film ({CONTAINERS})"
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif"
_FAR = 16
"""Frames that are decoded rather than jumped over: a jump costs about as much."""


class VideoReaderError(ImportError):
    """PyAV is not installed."""


class FilmFile(Video):
    """A film in a local file."""

    def __init__(self, path: str | os.PathLike[Any], max_pixels: int) -> None:
        self.path = _checked(path)
        self.max_pixels = max_pixels
        name = describe(path)
        _av()  # Where it is not installed, that is no fault of the film.
        with errors_of(name, FILM, VideoError), self._opened(name) as (container, stream):
            _check_stated(name, stream, max_pixels)
            self.clock = read_times(name, container, stream)
        with errors_of(name, FILM, VideoError), self._opened(name) as (container, stream):
            first = next(iter(container.decode(stream)), None)
            if first is None:
                raise VideoError(f"{name} has no frame that can be decoded; is it truncated?")
            size = Size(first.height, first.width)
            if size.pixels > max_pixels:
                raise VideoError(too_large(name, size, max_pixels))
            self.coded = size
            """Of a frame as it is stored, before it is turned upright."""
            height, width = _upright(np.empty((size.height, size.width, 0), np.uint8), _matrix(first)).shape[:2]
        super().__init__(name, Size(height, width), self.clock.total, self.clock.fps)

    def at(self, times: Sequence[float]) -> Iterator[Pixels]:
        self.check_times(times)
        wanted = [self.clock.index_at(time) for time in times]
        if not wanted:
            return
        done, last, latest = 0, -1, None
        with errors_of(self.name, FILM, VideoError):
            for index, frame in self._decoded(wanted):
                last, latest = index, frame
                if wanted[done] > index:
                    continue
                pixels = self._pixels(frame, index)
                while done < len(wanted) and wanted[done] <= index:
                    yield pixels
                    done += 1
                if done == len(wanted):
                    return
            # The last packets of a file may hold no picture of their own.
            if latest is not None and wanted[-1] - last <= max(2, self.total // 50):
                pixels = self._pixels(latest, last)
                for _ in wanted[done:]:
                    yield pixels
                return
        raise VideoError(
            f"{self.name} ends with frame {last + 1} of the {self.total} that it states, expected frame {wanted[done] + 1}; is it damaged?"
        )

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[InputContainer, VideoStream]]:
        """The container and its first stream of pictures that is no cover of a record."""
        av = _av()
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
        with av.open(f"file:{self.path}", options=options, metadata_errors="replace") as container:
            covers = av.stream.Disposition.attached_pic
            stream = next((each for each in container.streams.video if not each.disposition & covers), None)
            if stream is None:
                raise VideoError(f"{name} has no pictures, only sound or text; expected a film ({CONTAINERS})")
            # So that what the bitstream says, and the header did not, is refused before memory is taken for it.
            stream.codec_context.options = {"max_pixels": str(self.max_pixels)}
            yield container, stream

    def _decoded(self, wanted: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Frames with their numbers, in order, all that are wanted among them; what lies far before the next one is jumped over."""
        number = gone_to = -1
        with self._opened(self.name) as (container, stream):
            frames = container.decode(stream)
            while True:
                place = bisect_right(wanted, number)
                key = self.clock.key_before(wanted[place]) if place < len(wanted) else -1
                jumps = key > gone_to and key - number > _FAR
                if jumps:
                    gone_to = key
                    container.seek(self.clock.stamps[key], stream=stream)
                    frames = container.decode(stream)
                frame = next(frames, None)
                if frame is None:
                    return
                found = self._number(frame, number)
                if jumps and found > wanted[place]:
                    break
                if found > number:
                    number = found
                    yield number, frame
        # The file went further than it was told to: decode it from its start.
        with self._opened(self.name) as (container, stream):
            found = -1
            for frame in container.decode(stream):
                found = self._number(frame, found)
                if found > number:
                    yield found, frame

    def _number(self, frame: VideoFrame, before: int) -> int:
        return before + 1 if self.clock.counted or frame.pts is None else self.clock.index_of(frame.pts)

    def _pixels(self, frame: VideoFrame, index: int) -> Pixels:
        """(H, W, 3), upright. Frames of another size than the first, as calls over a network have them, are resampled to it."""
        if frame.is_corrupt:
            raise VideoError(
                f"{self.name} is damaged at frame {index + 1}, {self.clock.seconds(index):.2f} seconds from its start; repair it"
            )
        if (frame.height, frame.width) != (self.coded.height, self.coded.width):
            frame = frame.reformat(width=self.coded.width, height=self.coded.height)
        if any(component.is_alpha for component in frame.format.components):
            layers = frame.to_ndarray(format="rgba").astype(np.uint16)
            opaque = layers[..., 3:]
            pixels: Pixels = ((layers[..., :3] * opaque + 255 * (255 - opaque) + 127) // 255).astype(np.uint8)
        else:
            pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
        return np.ascontiguousarray(_upright(pixels, _matrix(frame)))


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise VideoReaderError("reading video files needs PyAV: pip install 'vlmkit[video]'") from None
    return av


def _matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """How a frame is turned and mirrored: it is shown at column a * x + c * y and row b * x + d * y."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data)[:20], np.int32))
    return a, b, c, d


def _upright(pixels: Pixels, matrix: tuple[int, int, int, int]) -> Pixels:
    """Turned by the nearest quarter of a circle, and mirrored."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        pixels = pixels.swapaxes(0, 1)
        a, d = c, b
    if d < 0:
        pixels = pixels[::-1]
    return pixels[:, ::-1] if a < 0 else pixels


def _check_stated(name: str, stream: VideoStream, max_pixels: int) -> None:
    """Raises VideoError where the header states frames of no pixels, or of too many."""
    height, width = stream.codec_context.height, stream.codec_context.width
    if height < 1 or width < 1:
        raise VideoError(f"{name} states frames of {height}x{width} pixels, expected at least one; is it truncated?")
    if height * width > max_pixels:
        raise VideoError(too_large(name, Size(height, width), max_pixels))


def _checked(path: str | os.PathLike[Any]) -> str:
    """The absolute path of a regular file that is not empty. Raises VideoError."""
    name = describe(path)
    try:
        text = local_path(os.fsdecode(path))
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:(//|[^\\/])", text) and not Path(text).exists():
            raise VideoError(f"{name} is a URL, and URLs are not fetched; download it and pass its path")
        status = Path(text).stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
            raise VideoError(f"{name} is {kind}, expected the path of a video file")
        if not status.st_size:
            raise VideoError(f"{name} is empty, expected a film ({CONTAINERS})")
    except FileNotFoundError:
        raise VideoError(f"{name} does not exist, expected the path of a video file") from None
    except VideoError:
        raise
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "not a valid path"
        raise VideoError(f"{name} cannot be opened ({reason}), expected the path of a video file") from None
    return os.path.abspath(text)
