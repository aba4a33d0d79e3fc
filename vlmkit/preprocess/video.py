"""Opening films: whatever a person may hand over becomes frames that are decoded when they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.images import Pixels, decode, image_size


class VideoError(ValueError):
    """Something that is no film: what it is, what was expected."""


@dataclass(frozen=True)
class Video:
    """Frames that lie ready, and how many of them are a second."""

    frames: Sequence[Any]
    fps: float

    @property
    def total(self) -> int:
        return len(self.frames)

    @property
    def size(self) -> Size:
        """That of the first frame; all have it, or rendering says which has not."""
        return image_size(self.frames[0])

    def shown(self, indices: Iterable[int]) -> Iterator[Pixels]:
        """(H, W, 3) uint8 of the frames of these numbers, one after the other."""
        for index in indices:
            yield decode(self.frames[index])


def open_video(source: Any, fps: float | None = None) -> Video:
    """A film from a list of frames, each of what `decode` takes, or from an array or tensor (F, H, W, 3) of uint8.

    fps: frames a second; frames of which nobody says it are taken for one a second, as transformers takes them. Raises VideoError.
    """
    shape = getattr(source, "shape", None)
    if shape is not None and (len(shape) != 4 or shape[-1] != 3):
        raise VideoError(f"an array of frames is (frames, height, width, 3), got {tuple(shape)}")
    if shape is None and (isinstance(source, str | bytes) or not isinstance(source, Sequence)):
        raise VideoError(f"a film is a list of frames or an array (frames, height, width, 3), got {type(source).__name__}")
    if not len(source):
        raise VideoError("a film shows at least one frame, got none")
    return Video(source, 1.0 if fps is None else fps)
