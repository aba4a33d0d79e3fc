"""Films on the command line: a file, or only its length, rate and size."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

from vlmkit.preprocess.geometry import Clip, Size

if TYPE_CHECKING:
    from vlmkit.preprocess.images import ImageError

SUFFIXES = (*(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),)
"""Of names that are taken for films'; a GIF is taken for a picture unless it is said otherwise."""
_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
_FORM = re.compile(rf"\s*{_NUMBER}\s*s\s*@\s*{_NUMBER}\s*fps\s*,\s*0*([1-9]\d{{0,8}})\s*[xX\u00d7*]\s*0*([1-9]\d{{0,8}})\s*")


def add_video_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--video",
        metavar="SECONDS,SIZE",
        dest="videos",
        type=read_video,
        action="append",
        default=[],
        help="a film: 20s@30fps,1920x1080, or the name of its file; repeatable",
    )


def read_video(text: str) -> Clip | str:
    """'20s@30fps,1920x1080' -> Clip(20, 30, Size(1080, 1920)); a name of a file as it is."""
    found = _FORM.fullmatch(text)
    if found is None:
        if is_film(text) or Path(text).exists():
            return text
        raise ArgumentTypeError(f"expected a film such as 20s@30fps,1920x1080, width first, or the name of its file, got {text!r}")
    seconds, fps = float(found[1]), float(found[2])
    if not seconds or not fps:
        raise ArgumentTypeError(f"expected more than 0 seconds and frames a second, got {text!r}")
    return Clip(seconds, fps, Size(height=int(found[4]), width=int(found[3])))


def is_film(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES


def named_clips(videos: list[Clip | str]) -> list[tuple[str, Clip | ImageError]]:
    """Films of a command line, each with what to call it; of a file that cannot be read, why not."""
    return [(str(video), video if isinstance(video, Clip) else _clip_or_error(video)) for video in videos]


def _clip_or_error(path: str) -> Clip | ImageError:
    from vlmkit.preprocess.video import VideoError, open_video

    try:
        return open_video(path).clip
    except VideoError as error:
        return error
