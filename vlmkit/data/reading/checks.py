"""What every reader's samples pass through, vlmkit's own and anybody's: images that are there and inside the folder,
conversations that can be laid out.

A reader only says which file and which words; it need not look whether they are any good.
"""

from __future__ import annotations

import functools
import inspect
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmkit.conversation import Conversation, pictures, read_conversation
from vlmkit.data.reading.media import DIFFER, tag_in
from vlmkit.data.reading.places import LONGEST_PATH
from vlmkit.data.reading.rows import Unusable, brief
from vlmkit.data.sample import LONGEST_ID, LONGEST_TEXT, DataError, Image, Rejected, Sample
from vlmkit.layout.laid_out import LayoutError

LONGEST_NAME = 200
"""Characters of a path in a message."""
MAX_MEMBERS = 10_000
"""Images of a sample, and conversations about them."""
MAX_BYTES = 1 << 30
"""Of one image file."""

Reader = Callable[..., Iterator[Sample | Rejected]]
"""A folder -> what it holds. Further arguments are keywords with a default, such as split="train"."""


def checked(reader: Reader) -> Reader:
    """The reader with all it yields looked at: what cannot be used is a Rejected, and nothing else goes missing.

    An image given as a relative path is taken from the folder. Raises DataError for what is no folder, holds no sample at all,
    or makes the reader fail.
    """

    @functools.wraps(reader)
    def read(folder: Path | str, **options: Any) -> Iterator[Sample | Rejected]:
        name = str(getattr(read, "kind", reader.__name__))
        if not os.path.isdir(folder):  # Path.resolve and is_dir raise where a link leads to itself
            raise DataError(f"{str(folder)[:300]} is not a folder; expected one that holds a data set as {name!r} reads it")
        root = Path(folder).resolve()
        inspect.signature(reader).bind(root, **options)  # an option that it does not have is the caller's mistake
        files = _Files(root)
        count = 0
        for item in _running(name, lambda: reader(root, **options), root):
            count += 1
            _check_kinds(name, item)
            if isinstance(item, Rejected):
                yield item
            else:
                yield from _examined(item, files)
        if not count:
            raise DataError(f"reader {name!r} found no sample in {root}")

    return read


def _check_kinds(name: str, item: Any) -> None:
    """Raises DataError for what nobody could count or look at: a reader's mistake, and not one of the data."""
    if not isinstance(item, Sample | Rejected):
        raise DataError(f"reader {name!r} yielded {brief(item)}; expected a Sample or a Rejected")
    if not (isinstance(item.source, str) and item.source and _is_unicode(item.source)):
        raise DataError(
            f"reader {name!r} calls the source {brief(item.source)}; expected a text in Unicode. "
            "A data set is called as its folder is: give that another name"
        )
    if isinstance(item, Rejected):
        if not all(isinstance(text, str) for text in (item.id, item.reason, item.detail)):
            raise DataError(f"reader {name!r} yielded {brief(item)}; expected texts in all fields of a Rejected")
    elif not all(isinstance(field, tuple | list) for field in (item.images, item.conversations)):
        raise DataError(
            f"reader {name!r} yielded a Sample with images {brief(item.images)} and conversations {brief(item.conversations)}; "
            "expected tuples: a single one is written (image,)"
        )


def _running(name: str, start: Callable[[], Iterator[Sample | Rejected]], root: Path) -> Iterator[Sample | Rejected]:
    """What a reader yields; its own mistakes as DataError."""
    count = 0
    try:
        for item in start():
            count += 1
            yield item
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"reader {name!r} failed in {root} after {count} samples: {type(error).__name__}: {str(error)[:300]}. "
            "A reader yields a Rejected for what it cannot use, or reads its rows with vlmkit.data.reading.rows.each"
        ) from error


def _examined(sample: Sample, files: _Files) -> Iterator[Sample | Rejected]:
    """The sample with those of its conversations that can be used, a Rejected for each other, or one for a bad image."""
    source, name = sample.source, sample.id
    if not (isinstance(name, str) and name and len(name) <= LONGEST_ID and _is_unicode(name)):
        yield Rejected(source, brief(name), "row has wrong fields", f"the id is {brief(name)}, expected 1 to {LONGEST_ID} letters")
        return
    try:
        if max(len(sample.images), len(sample.conversations)) > MAX_MEMBERS:
            held = f"{len(sample.images)} images and {len(sample.conversations)} conversations"
            raise Unusable("sample is too large", f"it has {held}, allowed are {MAX_MEMBERS} of each")
        images = tuple(files.image(image) for image in sample.images)
        if not sample.conversations:
            raise Unusable("no answer", "it has no conversation")
    except Unusable as error:
        yield Rejected(source, name, error.reason, f"{name}: {error.detail}")
        return
    kept = []
    for number, conversation in enumerate(sample.conversations):
        try:
            kept.append(_plain(conversation, len(images)))
        except Unusable as error:
            label = name if len(sample.conversations) == 1 else f"{name}, conversation {number}"
            yield Rejected(source, label, error.reason, f"{label}: {error.detail}")
    if kept:
        yield replace(sample, images=images, conversations=tuple(kept))


def _plain(conversation: Conversation, images: int) -> Conversation:
    """The conversation with the fields that are read and no others, which might hold anything.

    Raises Unusable for what no layout can take or nobody can learn from."""
    try:
        turns, media = read_conversation(conversation)
        shown = pictures(media)
    except (LayoutError, RecursionError) as error:
        raise Unusable("row has wrong fields", str(error)[:300]) from None
    if shown != list(range(images)):
        raise Unusable(DIFFER, f"the conversation shows images {brief(shown)}, the sample has {images}")
    texts = [part for turn in turns for part in turn.content if isinstance(part, str)]
    length = sum(map(len, texts))
    if length > LONGEST_TEXT:
        raise Unusable("text is too long", f"it has {length} characters, allowed are {LONGEST_TEXT}")
    for turn in turns:
        if tag := next(filter(None, (tag_in(part) for part in turn.content if isinstance(part, str))), None):
            raise Unusable(DIFFER, f"the {turn.role}'s words have {brief(tag)}, for which no image is shown")
    if not all(map(_is_unicode, texts)):
        raise Unusable("text is no Unicode", "it has bytes that are not UTF-8, or half of a character")
    if turns[-1].role != "assistant" or not any(isinstance(part, str) and part.strip() for part in turns[-1].content):
        raise Unusable("no answer", "it does not end with the assistant's words")
    return [
        {
            "role": turn.role,
            "content": message["content"] if isinstance(message["content"], str) else [_item(part, shown) for part in turn.content],
        }
        for turn, message in zip(turns, conversation, strict=True)
    ]


def _item(part: str | int, shown: list[Any]) -> dict[str, Any]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": shown[part]}


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Files:
    """Images of one folder. A path may go through links as long as it stays inside."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inside = f"{root}{os.sep}".replace(os.sep * 2, os.sep)
        # A data set has few folders and many files: only the folders are followed link by link.
        self.directory = functools.lru_cache(maxsize=4096)(os.path.realpath)

    def image(self, image: Image) -> Image:
        """The image, a path made absolute. Raises Unusable for what is not there, not inside, no file, empty or too large."""
        if isinstance(image, bytes):
            if not image:
                raise Unusable("image is empty", "an image has no bytes")
            return image
        if not isinstance(image, Path):
            raise DataError(f"a sample's image is a Path or bytes, got {brief(image)}")
        if len(str(image)) > LONGEST_PATH:
            raise Unusable("image is missing", f"its path has {len(str(image))} characters, a file system takes {LONGEST_PATH}")
        try:
            return self._file(image)
        except (OSError, ValueError) as error:  # not there, a loop of links, a name that no file system takes
            problem = getattr(error, "strerror", None) or "not a valid path"
            raise Unusable("image is missing", f"{self._name(image)}: {problem}") from None

    def _file(self, image: Path) -> Path:
        head, tail = os.path.split(self.root / image)
        path = os.path.join(self.directory(head), tail)
        self._check_inside(path, image)
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            path = os.path.realpath(path)
            self._check_inside(path, image)
            status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise Unusable("image is no file", f"{self._name(image)} is a directory, device or pipe")
        if not status.st_size:
            raise Unusable("image is empty", f"{self._name(image)} has no bytes")
        if status.st_size > MAX_BYTES:
            raise Unusable("image is too large", f"{self._name(image)} has {status.st_size} bytes, allowed are {MAX_BYTES}")
        return Path(path)

    def _name(self, image: Path) -> str:
        """As one looks for it: from the folder on."""
        name = str(image).removeprefix(self.inside)
        return repr(name) if len(name) <= LONGEST_NAME else brief(name)

    def _check_inside(self, path: str, image: Path) -> None:
        if not path.startswith(self.inside):
            raise Unusable("image leaves the folder", f"{self._name(image)} lies outside {self.root}; copy or mount it inside")
