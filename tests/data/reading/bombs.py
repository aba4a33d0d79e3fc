"""Files that ask for much: a value without measure where a format has a value, in each container that formats come in."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

TURNS = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
SAID = [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "A."}]
HERE = "put the bomb here"


def filled(unit: str, size: int) -> str:
    return ",".join(repeat(unit, size // (len(unit) + 1)))


def array(unit: str) -> Callable[[int], str]:
    return lambda size: "[" + filled(unit, size) + "]"


def text(unit: str, begin: str = "") -> Callable[[int], str]:
    return lambda size: '"' + begin + unit * (size // len(unit)) + '"'


JSON: dict[str, Callable[[int], str]] = {
    "lists": array("[]"),
    "objects": array("{}"),
    "lists of one": array("[0]"),
    "objects of one": array('{"":0}'),
    "nested objects": array('{"":' * 900 + "0" + "}" * 900),
    "letters": array('"é"'),
    "one key": lambda size: "{" + filled('"a":0', size) + "}",
    "keys": lambda size: "{" + ",".join(f'"{number:x}":0' for number in range(size // 11)) + "}",
    "digits": lambda size: "1" * size,
    "a fraction": lambda size: "0." + "1" * size,
    "large numbers": array("1" * 4299),
    "brackets": lambda size: "[" * size,
    "brackets without end": lambda size: "[" + "[]," * (2 * size // 3),
    "a text without end": lambda size: '"' + "x" * 2 * size,
    "a wide text": text("x", "😀"),
    "a text": text("x"),
    "escapes": text("\\u00e9"),
    "tags": text("<image>"),
    "folders": text("x/"),
    "key of a picture": lambda size: '{"' + "x" * size + 'image":"a.jpg"}',
    "ends of names": text(".ab  "),
    "base64": text("AAAA", "data:image/png;base64,"),
    "garbage for base64": text("/!", "data:image/png;base64,"),
    "images": array('{"type":"image","path":"a"}'),
    "messages": array('{"role":"user","content":""}'),
    "conversations": array(json.dumps(TURNS)),
}
"""About so many characters of JSON, or twice as many."""


def _lines(*rows: Any) -> str:
    return "\n".join(map(json.dumps, rows))


def _chat(*values: tuple[str, Any]) -> Iterator[tuple[str, str]]:
    for field, value in values:
        yield "data.jsonl", _lines({"messages": TURNS, field: value}, {"messages": TURNS})
        yield "data.json", json.dumps([{"messages": TURNS, field: value}, {"messages": TURNS}])


def _asked(file: str, key: str | None, row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """With each field of a row replaced, one more, and another one beside the rows."""
    for field in [*row, "more", "media"]:
        rows = [row | {field: HERE}, row]
        yield file, json.dumps({"info": 0, key: rows} if key else rows)
    if key:
        yield file, json.dumps({"info": HERE, key: [row]})


def places() -> Iterator[tuple[str, str, str]]:
    """(format, its file, what is in it) with HERE where something may be put: every format whose rows are JSON, every field."""
    shown = [{"role": "user", "content": [{"type": "image", "path": HERE}]}, TURNS[1]]
    linked = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": HERE}}]}, TURNS[1]]
    content = [{"role": "user", "content": HERE}, TURNS[1]]
    for file, text in _chat(
        *[(field, HERE) for field in ("more", "images", "messages", "conversations", "system", "video", "media")],
        *[("messages", turns) for turns in (shown, linked, content)],
    ):
        yield "chat", file, text
    annotation, image = {"image_id": 1, "caption": "c"}, {"id": 1, "file_name": "a.jpg"}
    for _, text in _asked("", "annotations", annotation):
        yield "coco", "annotations/captions_train.json", json.dumps(json.loads(text) | {"images": [image]})
    for field in image:
        yield "coco", "annotations/captions_train.json", json.dumps({"annotations": [annotation], "images": [image | {field: HERE}, image]})
    asked = {"question": "q", "answers": ["a"]}
    for kind, file, key, row in (
        ("docvqa", "train_v1.0.json", "data", {"image": "a.jpg", **asked}),
        ("textvqa", "TextVQA_0_train.json", "data", {"image_id": "a", **asked}),
        ("redcaps", "annotations/a.json", "annotations", {"subreddit": "s", "image_id": "a", "caption": "c"}),
        ("llava", "a.json", None, {"id": 1, "image": "a.jpg", "conversations": SAID}),
    ):
        for place, text in _asked(file, key, row):
            yield kind, place, text
    question = {"imageId": 1, "question": "q", "answer": "a"}
    for field in [*question, "more"]:
        yield "gqa", "train_balanced_questions.json", json.dumps({"1": question | {field: HERE}, "2": question})
    yield "gqa", "train_balanced_questions.json", json.dumps({HERE: question, "2": question})
    for field in ("more", "messages", "conversations", "caption", "images", "video"):
        yield "webdataset", "a.tar", json.dumps({"messages": TURNS, field: HERE})


def put(folder: Path, file: str, text: str, value: str) -> dict[str, str]:
    """Write a place with a value in it; the options with which it is read."""
    before, _, after = text.partition(json.dumps(HERE))
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        if file.endswith(".tar"):
            data = f"{before}{value}{after}".encode("utf-8", "surrogateescape")
            with tarfile.open(fileobj=stream, mode="w") as tar:
                for name, content in (("a.json", data), ("b.json", json.dumps({"messages": TURNS}).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        else:
            for part in (before, value, after):
                stream.write(part.encode("utf-8", "surrogateescape"))
    return {"name": file} if file == "data.json" else {}
