"""LLaVA conversations (Liu et al. 2023, arXiv:2304.08485): a JSON list of {id, image, conversations}, one sample a row.

Turns are {"from": "human" or "gpt", "value": text}. An image stands where a human turn has <image>; the line breaks around the
tag belong to it. A row without `image` has text only, and a tag in it is text. Images lie below the folder or its images/.
Read as a stream: one row is in memory, and rows about the same image stay rows of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlmkit.conversation import Conversation
from vlmkit.data.formats import formats
from vlmkit.data.reading.places import first_there, one_file
from vlmkit.data.reading.rows import AnnotationRow, Unusable, brief, each, json_rows
from vlmkit.data.sample import Rejected, Sample

TAG = "<image>"
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@formats.register("llava")
def read(folder: Path, *, name: str = "*.json") -> Iterator[Sample | Rejected]:
    """name: the annotation file, where the folder has several; the pretraining set's <name>_meta.json is not one."""
    source = folder.name
    file = one_file(folder, name, but="*_meta.json", way_out="Name one, such as name='llava_v1_5_mix665k.json'")

    def sample(row: AnnotationRow) -> Sample:
        images = tuple(first_there(folder / image, folder / "images" / image) for image in _images(row))
        # Ids repeat: an instruction set has several rows about one picture.
        return Sample(images, (conversation(row.many("conversations"), len(images)),), source, f"{row.name}/{row.key('id')}")

    yield from each(source, json_rows(source, file), sample)


def _images(row: AnnotationRow) -> Sequence[str]:
    named = row.get("image")
    if named is None:
        return ()
    return row.texts("image") if isinstance(named, list) else (row.text("image"),)


def conversation(turns: Sequence[Any], images: int) -> Conversation:
    """Turns of LLaVA in the chat format. Raises Unusable for turns of another form."""
    messages: list[dict[str, Any]] = []
    shown = 0
    for number, turn in enumerate(turns):
        role = _ROLES.get(str(turn.get("from"))) if isinstance(turn, dict) else None
        value = turn.get("value") if isinstance(turn, dict) else None
        if role is None or not isinstance(value, str):
            raise Unusable("row has wrong fields", f"turn {number}: want {{'from': 'human' or 'gpt', 'value': text}}, got {brief(turn)}")
        if not images or role != "user":
            messages.append({"role": role, "content": value})
            continue
        content: list[dict[str, Any]] = []
        for place, text in enumerate(value.split(TAG)):
            if place:
                content.append({"type": "image", "image": shown})
                shown += 1
            if text := text.strip("\n"):
                content.append({"type": "text", "text": text})
        messages.append({"role": role, "content": content})
    return messages
