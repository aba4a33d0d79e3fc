"""A folder with `data.jsonl`: one conversation a line, in the chat format of the ecosystem, images as paths.

    {"messages": [{"role": "user", "content": [{"type": "image", "path": "images/1.jpg"}, {"type": "text", "text": "What?"}]},
                  {"role": "assistant", "content": "A dog."}]}

Paths are relative to the folder and stay inside it, also through symbolic links. The file is indexed once by the
positions of its lines, so that a line is read when it is asked for and the memory does not grow with the data.
"""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

from vlmkit.conversation import Conversation, read_conversation
from vlmkit.data.sample import DataError
from vlmkit.layout.base import LayoutError


class ChatJsonl:
    """A sequence of conversations. Image items hold the absolute path of a file that lies in the folder."""

    def __init__(self, directory: Path | str, name: str = "data.jsonl") -> None:
        """Raises DataError where the file is missing or empty."""
        self.directory = Path(directory).resolve()
        self.file = self.directory / name
        if not self.file.is_file():
            raise DataError(f"{self.file} does not exist; one conversation a line is expected there")
        self._starts = array("Q")
        self._lines = array("Q")
        with self.file.open("rb") as file:
            start = 0
            for number, line in enumerate(file, start=1):
                if line.strip():
                    self._starts.append(start)
                    self._lines.append(number)
                start += len(line)
        if not self._starts:
            raise DataError(f"{self.file} is empty")

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int, /) -> Conversation:
        """Raises DataError naming the line for what is no conversation, or an image that is not a file of the folder."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.file} has {len(self)} conversations, asked for number {index}")
        with self.file.open("rb") as file:
            file.seek(self._starts[index])
            line = file.readline()
        where = f"{self.file}, line {self._lines[index]}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error})") from None
        if not isinstance(record, dict) or not isinstance(record.get("messages"), list):
            raise DataError(f"{where}: expected an object with a list 'messages'")
        try:
            read_conversation(record["messages"])
        except LayoutError as error:
            raise DataError(f"{where}: {error}") from None
        return [self._message(message, where) for message in record["messages"]]

    def _message(self, message: dict[str, Any], where: str) -> dict[str, Any]:
        if isinstance(message["content"], str):
            return message
        return message | {"content": [item if item["type"] == "text" else self._image(item, where) for item in message["content"]]}

    def _image(self, item: dict[str, Any], where: str) -> dict[str, Any]:
        """The item with the absolute path of a file that lies in the folder."""
        named = item.get("path") or item.get("image")
        if item["type"] != "image" or not isinstance(named, str):
            raise DataError(f"{where}: an image is given as {{'type': 'image', 'path': <relative to the folder>}}, got {item!r}"[:300])
        path = (self.directory / named).resolve()
        if not path.is_relative_to(self.directory):
            raise DataError(f"{where}: image {named!r} lies outside {self.directory}")
        if not path.is_file():
            raise DataError(f"{where}: image {named!r} is not there")
        return {"type": "image", "image": str(path)}
