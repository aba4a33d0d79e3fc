from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmkit.data.chat_jsonl import ChatJsonl
from vlmkit.data.sample import DataError


def row(image: str, question: str = "What?") -> dict:
    content = [{"type": "image", "path": image}, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "A dog, é."}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def write(folder: Path, *lines: str | dict) -> ChatJsonl:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / "data.jsonl").write_text(text, encoding="utf-8")
    return ChatJsonl(folder)


def test_lines_are_read_by_number(folder):
    data = write(folder, row("a.png", "première?"), "", row("a.png", "second?"), {"messages": [{"role": "user", "content": "no image"}]})
    assert len(data) == 3
    assert data[1][0]["content"] == [{"type": "image", "image": str(folder / "a.png")}, {"type": "text", "text": "second?"}]
    assert data[0][0]["content"][1]["text"] == "première?"
    assert data[2] == [{"role": "user", "content": "no image"}]
    assert data[0][1]["content"] == "A dog, é."
    with pytest.raises(IndexError, match="has 3 conversations, asked for number 3"):
        data[3]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: expected an object with a list 'messages'"),
        ({"messages": [{"role": "robot", "content": "?"}]}, "line 2: message 0: role 'robot'"),
        (row("b.png"), "line 2: image 'b.png' is not there"),
        (row("../a.png"), "line 2: image '../a.png' lies outside"),
        (row("/etc/passwd"), "line 2: image '/etc/passwd' lies outside"),
        (row("elsewhere"), "is not there"),
        (row("link.png"), "lies outside"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]},
            "an image is given as",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(folder, line, words):
    outside = folder / ".." / f"{folder.name}.png"
    outside.write_bytes((folder / "a.png").read_bytes())
    (folder / "link.png").symlink_to(outside)
    data = write(folder, row("a.png"), line)
    assert data[0]
    with pytest.raises(DataError, match=words):
        data[1]


def test_nothing_there(folder):
    with pytest.raises(DataError, match=r"data\.jsonl does not exist"):
        ChatJsonl(folder)
    (folder / "data.jsonl").write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        ChatJsonl(folder)
