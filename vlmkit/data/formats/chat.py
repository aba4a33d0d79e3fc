"""Chat messages, the format of the ecosystem: a row a conversation, images as paths, one sample a row.

    {"messages": [{"role": "user", "content": [{"type": "image", "path": "images/1.jpg"}, {"type": "text", "text": "What?"}]},
                  {"role": "assistant", "content": "A dog."}]}
    {"messages": [{"role": "user", "content": "<image>What?"}, ...], "images": ["images/1.jpg"]}

Turns are `messages` or `conversations`, as `reading.turns` spells them, behind a `system` text where there is one. An image is named
in its item (under `path`, `image`, `url` or `base64`, or OpenAI's {"type": "image_url"}), or it is the next of the column `images` (or
`image`). A name is a path relative to the folder, a file:// or a data: URI; a table holds {bytes, path} too. What a row names and does not
show, and the other way round, costs the row; so do films and sounds. The file is JSON lines, a JSON list (.json) or a table (.parquet),
read as a stream: one row is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmkit.conversation import Conversation
from vlmkit.data.formats import formats
from vlmkit.data.reading.media import DIFFER, check_films, check_unread
from vlmkit.data.reading.parquet import parquet_rows
from vlmkit.data.reading.places import below, one_file
from vlmkit.data.reading.rows import AnnotationRow, Rows, Unusable, brief, each, json_lines, json_rows
from vlmkit.data.reading.turns import conversation, named_by
from vlmkit.data.reading.urls import Fetch, decoded, fetched, is_data, is_url
from vlmkit.data.sample import DataError, Image, Rejected, Sample

COLUMNS = ("images", "image")
UNTAGGED = ("reject", "first")


@formats.register("chat")
def read(folder: Path, *, name: str = "data.jsonl", untagged: str = "reject", fetch: Fetch | None = None) -> Iterator[Sample | Rejected]:
    """name: the file of conversations. untagged: what becomes of a row whose column names images and whose turns show none: "first"
    has them before the first words of the user, as TRL and ms-swift do. fetch: gets images that are given by URL; without it their
    rows are rejected."""
    if untagged not in UNTAGGED:
        raise DataError(f"untagged is {brief(untagged)}, expected one of {', '.join(UNTAGGED)}")
    source = folder.name
    file = one_file(folder, name, way_out="Name the file of conversations, such as name='train.jsonl'")

    def find(name: Any) -> Image:
        if isinstance(name, dict):
            name = next((name[key] for key in ("bytes", "path", "url") if name.get(key) is not None), None)
        if isinstance(name, bytes):
            return name
        if not isinstance(name, str):
            raise Unusable("row has wrong fields", f"an image is {{'type': 'image', 'path': <below the folder>}}, got {brief(name)}")
        if is_data(name):
            return decoded(name)
        return fetched(name, fetch) if is_url(name) else below(folder, name)

    def sample(row: AnnotationRow) -> Sample:
        turns = row.many("messages" if row.get("messages") is not None or row.get("conversations") is None else "conversations")
        check_films(row.value)
        shown = _Shown(_named(row))
        said = conversation(turns, shown.number)
        if untagged == "first" and not shown.names:
            said = _before_all(said, len(shown.column), shown)
        shown.check()
        check_unread(row.value, COLUMNS, shown.names)
        return Sample(tuple(map(find, shown.names)), (_with_system(row, said),), source, row.where)

    yield from each(source, _rows(folder, file), sample)


class _Shown:
    """The images of a row, in the order in which its turns show them."""

    def __init__(self, column: list[Any]) -> None:
        self.column = column
        self.names: list[Any] = []
        self._taken = 0

    def number(self, item: Mapping[str, Any]) -> int:
        """The number of an item's image, which it names itself or takes from the column. Raises Unusable."""
        name = named_by(item)
        # Tables number the images of a column: {"type": "image", "index": 0}.
        place = name if name is not None else item.get("index")
        if name is None or (isinstance(name, int) and not isinstance(name, bool)):
            if place is not None and place != self._taken:
                raise Unusable(DIFFER, f"image {brief(place)} of the column is shown where {self._taken} is due: images are shown in order")
            if not self.column and item:
                raise Unusable(DIFFER, f"{brief(item)} names no image under path, image, url or base64, and no column of the row does")
            if self._taken == len(self.column):
                raise Unusable(DIFFER, f"the row names {len(self.column)} images in its column, and its turns show more")
            name = self.column[self._taken]
            self._taken += 1
        self.names.append(name)
        return len(self.names) - 1

    def check(self) -> None:
        """Raises Unusable where the column names an image that no turn shows, or one may be meant twice."""
        if 0 < self._taken < len(self.names):
            raise Unusable(DIFFER, "some images are named in their items and others in the column; name all in one way")
        # A column may repeat what all items name themselves.
        lost = [name for name in self.column[self._taken :] if self._taken or name not in self.names]
        if lost:
            way_out = "" if self.names else "; with untagged=first they stand before the first words, as TRL and ms-swift have it"
            told = (
                f"the row names {len(self.column)} images, and its turns show {len(self.names)}: {brief(lost[0])} has no <image>{way_out}"
            )
            raise Unusable(DIFFER, told)


def _rows(folder: Path, file: Path) -> Rows:
    if file.suffix == ".parquet":
        return parquet_rows(folder, [file], None)
    return json_rows(folder.name, file) if file.suffix == ".json" else json_lines(folder.name, file)


def _named(row: AnnotationRow) -> list[Any]:
    """What the columns of images name."""
    named: list[Any] = []
    for column in COLUMNS:
        value = row.get(column)
        values = value if isinstance(value, list) else [value] if value is not None and value != "" else []
        named += [name for name in values if name not in named] if named else values
    return named


def _before_all(said: Conversation, count: int, shown: _Shown) -> Conversation:
    """The conversation with all images of the column before the first words of the user."""
    messages = list(said)
    for place, message in enumerate(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            words = [{"type": "text", "text": content}] if isinstance(content, str) else content
            if isinstance(words, list):
                pictures = [{"type": "image", "image": shown.number({})} for _ in range(count)]
                messages[place] = message | {"content": [*pictures, *words]}
            break
    return messages


def _with_system(row: AnnotationRow, said: Conversation) -> Conversation:
    """The conversation behind the system's text, which LLaMA-Factory and ms-swift have in a column of its own."""
    if not isinstance(row.get("system"), str) or not row.get("system"):
        return said
    if said and isinstance(said[0], dict) and said[0].get("role") == "system":
        raise row.wrong("a column 'system' and a message of the system: which of them counts?")
    return [{"role": "system", "content": row.text("system")}, *said]
