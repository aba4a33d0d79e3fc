"""WebDataset (Aizman et al. 2020, arXiv:2001.01858): tars, one sample a key; as img2dataset, other tools and vlmkit write them.

Members that are pictures by their ending are the images, in their order. The words are, first that is there:
- a .json with `conversations`, a list of conversations in the chat format, or one in LLaVA's;
- a .json with `messages`, one conversation in the chat format;
- a .txt, or a .json with `caption`: a caption.
An image item of a conversation names an image by number or by member, or takes the next, as a tag <image> does. A key with a film or a
sound, or whose .json names other media than its members, is no sample. Tars may be compressed; they lie at the top, or where none
does, one folder down. Read as a stream: one sample is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmkit.conversation import Conversation
from vlmkit.data.formats import formats
from vlmkit.data.reading.large_json import TooLarge
from vlmkit.data.reading.media import DIFFER, UNREAD_ENDINGS, check_films, other_media
from vlmkit.data.reading.places import files
from vlmkit.data.reading.rows import TOO_LARGE, Unusable, brief, from_bytes
from vlmkit.data.reading.tars import TarMembers, groups
from vlmkit.data.reading.turns import conversation, named_by
from vlmkit.data.reading.wording import CAPTION, ask
from vlmkit.data.sample import DataError, Rejected, Sample
from vlmkit.preprocess.endings import ENDINGS

TARS = ("*.tar", "*.tar.gz", "*.tgz")


@formats.register("webdataset")
def read(folder: Path) -> Iterator[Sample | Rejected]:
    source = folder.name
    shards: dict[str, Path] = {}
    for shard in files(folder, TARS, tuple(f"*/{pattern}" for pattern in TARS)):
        name = shard.relative_to(folder).as_posix().partition(".tar")[0]
        if other := shards.get(name):
            raise DataError(f"{folder} has {other.name} and {shard.name}, which would be read as the same samples twice; move one away")
        shards[name] = shard
    for name, shard in shards.items():
        for found in groups(source, shard):
            if isinstance(found, Rejected):
                yield found
                continue
            key, members = found
            try:
                yield _sample(source, f"{name}/{key}", members)
            except Unusable as error:
                yield Rejected(source, f"{name}/{key}", error.reason, f"{shard.name}, {brief(key)}: {error.detail}")


def _sample(source: str, name: str, members: TarMembers) -> Sample:
    if unread := next((ending for ending in members if ending.rpartition(".")[2] in UNREAD_ENDINGS), None):
        raise other_media(f"it has a member {brief(unread)}")
    pictures = {ending: data for ending, data in members.items() if ending.rpartition(".")[2] in ENDINGS}
    return Sample(tuple(pictures.values()), tuple(_conversations(members, list(pictures))), source, name)


def _conversations(members: TarMembers, pictures: Sequence[str]) -> list[Conversation]:
    said = _json(members["json"]) if "json" in members else {}
    check_films(said)
    named = said.get("images", said.get("image"))
    count = len(named) if isinstance(named, list) else int(isinstance(named, str) and named != "")
    if count > len(pictures) or (isinstance(named, list) and 0 < count < len(pictures)):
        raise Unusable(DIFFER, f"its .json names {count} images, its members are {brief(list(pictures))}")
    if isinstance(turns := said.get("conversations"), list):
        if turns and isinstance(turns[0], list):
            return [_numbered(messages, pictures) for messages in turns]
        return [_numbered(turns, pictures)]
    if isinstance(messages := said.get("messages"), list):
        return [_numbered(messages, pictures)]
    caption = members["txt"].decode("utf-8-sig", "surrogateescape").strip() if "txt" in members else said.get("caption")
    if not isinstance(caption, str):
        raise Unusable("no answer", f"no .txt and no .json with conversations, messages or caption; members: {brief(list(members))}")
    if not pictures:
        raise Unusable(DIFFER, f"a caption and no picture; members: {brief(list(members))}")
    return [ask(CAPTION, caption, len(pictures))]


def _numbered(messages: Any, pictures: Sequence[str]) -> Conversation:
    """The conversation with images by number. Raises Unusable where it names one that is not there."""
    if not isinstance(messages, list):
        raise Unusable("row has wrong fields", f"expected a list of messages, got {brief(messages)}")
    shown = 0

    def number(item: Mapping[str, Any]) -> int:
        nonlocal shown
        named = named_by(item)
        # A member's name ends with what it is called here: "photo.0.jpg" is "0.jpg" of the key "photo".
        named = named.lower() if isinstance(named, str) else named
        place = pictures.index(named) if named in pictures else named
        place = shown if place is None else place
        if isinstance(place, bool) or not isinstance(place, int):
            raise Unusable(DIFFER, f"{brief(named)} is none of {brief(list(pictures))}")
        shown += 1
        return place

    return conversation(messages, number)


def _json(data: bytes) -> dict[str, Any]:
    try:
        said = from_bytes(data)
    except TooLarge as error:
        raise Unusable(TOO_LARGE, f"its .json has {error}") from None
    except (EOFError, ValueError, RecursionError) as error:
        raise Unusable("row is not JSON", getattr(error, "msg", None) or type(error).__name__) from None
    if not isinstance(said, dict):
        raise Unusable("row has wrong fields", f"expected an object, got {brief(said)}")
    return said
