"""What a row says that it shows: tags in its texts, columns and items that name pictures, films or sounds.

One rule holds for every reader: a row that names media which its sample does not hold is no sample. What is called `<image>` in a
data set of pictures would otherwise be taught as a word, about a picture that nobody saw.

Tags: `<image>`, `<video>` and `<audio>` of LLaVA, LLaMA-Factory and ms-swift; `<image_00>` of MiniCPM-V, `<|image_1|>` of Phi-3,
`<image 1>` of MMMU, `<img>path</img>` of Qwen-VL, `<ImageHere>` of InternLM-XComposer. A model's own special tokens are none of them:
spelled in a text they stay text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from vlmkit.data.reading.rows import Unusable, brief

TAG = "<image>"
"""What stands for an image in a text of the user's; of all tags the only one that is read."""
DIFFER = "images and text differ"
OTHER_MEDIA = "media other than images"
FILMS_AND_SOUNDS = ("video", "videos", "audio", "audios")
"""Columns."""
FILM_ITEMS = ("video", "video_url", "audio", "audio_url", "input_audio")
"""Types of a message's items."""
UNREAD_ENDINGS = (
    *("mp4", "webm", "mkv", "mov", "avi", "mpg", "mpeg"),
    *("wav", "mp3", "flac", "ogg", "opus", "m4a"),
    "jxl",
)
"""Files that are media, and that no sample holds."""

_TAGS = re.compile(r"<(?:image|video|audio)(?:_placeholder|[ _]?\d+)?>|<\|(?:image|video|audio)_\d+\|>|<ImageHere>|<img>[^<>]*</img>")
_OF_HTML = ("<video>", "<audio>")
_NAMES_MEDIA = re.compile(
    r".*(image|img|picture|photo|video|audio|film|frame|media)s?([_-]?(url|uri|path|file|file_?name|src)s?)?|file_names?", re.I
)
_IS_ADDRESS = re.compile(r"data:|https?:", re.I)
_ENDS_AS_FILE = re.compile(r".*\.[a-z0-9]{2,5}\s*$", re.I | re.S)
_DEEPEST = 3
_LONGEST = 4096
"""Characters of what may be a column's name, or a file's."""


def tag_in(text: str) -> str | None:
    """The first tag that stands for media: tag_in("<image> What?") is "<image>".

    HTML's <video>...</video> and <audio>...</audio>, which are closed, stand for nothing.
    """
    if "<" not in text:
        return None
    tags = (found[0] for found in _TAGS.finditer(text))
    return next((tag for tag in tags if tag not in _OF_HTML or f"</{tag[1:]}" not in text), None)


def check_films(row: Mapping[str, Any]) -> None:
    """Raises Unusable where a row names a film or a sound."""
    for column in FILMS_AND_SOUNDS:
        if row.get(column):
            raise other_media(f"column {column!r} names {brief(row[column])}")


def check_unread(row: Mapping[str, Any], read: Collection[str], shown: Collection[Any]) -> None:
    """Raises Unusable where a column whose name speaks of media, and that is none of `read`, names a file that is none of `shown`."""
    names = {_base(name) for name in shown if isinstance(name, str)}
    for column, value in row.items():
        if column in read or len(str(column)) > _LONGEST or not _NAMES_MEDIA.fullmatch(str(column)):
            continue
        for name in _named(value):
            if not isinstance(name, str) or _base(name) not in names:
                raise Unusable(DIFFER, f"column {column!r} names {brief(name)}, which the row does not show; images are read from 'images'")


def other_media(what: str) -> Unusable:
    return Unusable(OTHER_MEDIA, f"{what}; a sample holds images only: draw frames from a film, and name those as images")


def _named(value: Any, depth: int = 0) -> list[Any]:
    """Names of files and bytes of them in a value; not numbers, flags and words."""
    if isinstance(value, str | bytes):
        return [value] if value and (isinstance(value, bytes) or _is_file(value)) else []
    if depth == _DEEPEST or not isinstance(value, list | dict):
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [name for item in inner for name in _named(item, depth + 1)]


def _is_file(text: str) -> bool:
    return bool(_IS_ADDRESS.match(text) or (len(text) <= _LONGEST and _ENDS_AS_FILE.match(text)))


def _base(name: str) -> str:
    """The last part of a path; a data: URI of megabytes is none to take apart."""
    return name.rstrip("/").rpartition("/")[2]
