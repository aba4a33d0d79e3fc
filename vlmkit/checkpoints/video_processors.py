"""Fields of published video processors that several families have: which frames are shown, and how their pixels become numbers."""

from __future__ import annotations

from typing import Any

from vlmkit.checkpoints.image_processors import NORMALISED, field, named, normalisation, resample_of
from vlmkit.preprocess.sampling import Sampling
from vlmkit.spec import SpecError


def refuse_other_pixels(videos: Any, images: Any) -> None:
    """Raise SpecError where films and images are filtered or normalised in different ways: an encoder has one for both."""
    if (resample_of(videos), normalisation(videos)) != (resample_of(images), normalisation(images)):
        names = [name for name in NORMALISED if getattr(videos, name) != getattr(images, name)]
        raise SpecError(f"{field(videos, *names)}, but {field(images, *names)}: vlmkit has one filter and one normalisation for both")


def sampling_of(videos: Any) -> Sampling | None:
    """Which frames a published video processor shows by itself; None where it leaves that to the caller, as they are published.

    Raises SpecError where it states both a number of frames and frames a second, or neither.
    """
    if not videos.do_sample_frames:
        return None
    if (videos.fps is None) == (videos.num_frames is None):
        raise SpecError(f"{field(videos, 'do_sample_frames', 'fps', 'num_frames')}: expected one of fps and num_frames")
    rate: dict[str, Any] = {"frames": videos.num_frames} if videos.fps is None else {"fps": float(videos.fps)}
    multiple = videos.temporal_patch_size
    if videos.min_frames % multiple:
        raise SpecError(f"{field(videos, 'min_frames')}: expected a multiple of the {multiple} frames of a patch")
    with named(videos, "do_sample_frames", "fps", "num_frames", "min_frames", "max_frames"):
        return Sampling(
            min_frames=videos.min_frames,
            max_frames=videos.max_frames,
            multiple=multiple,
            spread="starts",
            **rate,
        )


def sampling_fields(sampling: Sampling | None, patch_frames: int) -> dict[str, Any]:
    """The inverse, as fields of a video processor; none where no published one shows the same frames, for the caller chooses then."""
    if sampling is None or (sampling.spread, sampling.multiple, sampling.repeat) != ("starts", patch_frames, 1):
        return {}
    rate = {"fps": sampling.fps} if sampling.frames is None else {"num_frames": sampling.frames}
    return {"do_sample_frames": True, "min_frames": sampling.min_frames, "max_frames": sampling.max_frames, **rate}
