"""What a conversation may look like, and what is said about one that does not."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tiny import picture
from vlmkit.conversation import Film, Picture, pictures, read_conversation
from vlmkit.layout.laid_out import LayoutError, Turn
from vlmkit.preprocess import open_image
from vlmkit.preprocess.sampling import Sampling

TEXT = {"type": "text", "text": "hi"}


def test_texts_and_images_become_turns_and_images_in_the_order_in_which_they_stand() -> None:
    first, second, third = object(), "b.png", {"url": "c.png"}
    turns, images = read_conversation(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image", "image": first}, TEXT, {"type": "image", "path": second}]},
            {"role": "assistant", "content": [{"type": "text", "text": ""}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": third}]},
        ]
    )
    assert turns == (
        Turn("system", ("Be brief.",), as_string=True),
        Turn("user", (0, "hi", 1)),
        Turn("assistant", ("",)),
        Turn("user", (2,)),
    )
    assert images == [Picture(first), Picture("b.png"), Picture("c.png")]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "image", "url": "a.png"},
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "image_url", "image_url": "a.png"},
    ],
)
def test_every_spelling_of_an_image_in_the_ecosystem_is_read(item: dict[str, Any]) -> None:
    assert read_conversation([{"role": "user", "content": [item]}]) == ((Turn("user", (0,)),), [Picture("a.png")])


def test_an_image_in_base64_is_read_as_the_file_that_it_is() -> None:
    """As transformers' chat templates and pipelines have it."""
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "PNG")
    inline = base64.b64encode(file.getvalue()).decode()
    _, media = read_conversation([{"role": "user", "content": [{"type": "image", "base64": inline}]}])
    assert np.array_equal(np.asarray(open_image(*pictures(media))), picture())
    with pytest.raises(LayoutError, match=r"item 0: expected \{'type': 'text', 'text': ...\}, .*, got \{'type': 'image', 'base64': None\}"):
        read_conversation([{"role": "user", "content": [{"type": "image", "base64": None}]}])


@pytest.mark.parametrize("key", ["video", "path", "url"])
def test_images_and_videos_are_numbered_in_one_sequence(key: str) -> None:
    frames, sampling = [object(), object()], Sampling(frames=8)
    turns, media = read_conversation(
        [
            {"role": "user", "content": [{"type": "video", key: "a.mp4"}, TEXT, {"type": "image", "image": "b.png"}]},
            {"role": "assistant", "content": "Yes."},
            {
                "role": "user",
                "content": [
                    {"type": "video", key: frames, "fps": 30},
                    {"type": "video", key: Path("c.mp4"), "sampling": {"frames": 8}},
                    {"type": "video", key: "d.mp4", "sampling": sampling},
                ],
            },
        ]
    )
    assert [turn.content for turn in turns] == [(0, "hi", 1), ("Yes.",), (2, 3, 4)]
    assert media == [
        *(Film("a.mp4"), Picture("b.png"), Film(frames, 30.0), Film(Path("c.mp4"), None, sampling), Film("d.mp4", None, sampling)),
    ]
    assert type(media[2][1]) is float
    with pytest.raises(LayoutError, match=r"^images are taken here and no videos, got a video as number 0 of what"):
        pictures(media)
    assert pictures(media[1:2]) == ["b.png"]


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ("hello", "a conversation is a list of messages, got 'hello'"),
        ({"role": "user", "content": "hi"}, "a conversation is a list of messages, got {'role': 'user', 'content': 'hi'}"),
        (7, "a conversation is a list of messages, got 7"),
        ([], "a conversation has at least one message, got an empty list"),
        (["hello"], "message 0: expected an object with 'role' and 'content', got 'hello'"),
        ([{"role": "user"}], "message 0: expected an object with 'role' and 'content', got {'role': 'user'}"),
        ([{"role": "tool", "content": "4"}], "message 0: role 'tool' is not one of system, user, assistant"),
        ([{"role": ["user"], "content": "4"}], "message 0: role ['user'] is not one of system, user, assistant"),
        ([{"role": "assistant", "content": None}], "message 0: content is a text or a list of items, got None"),
        ([{"role": "user", "content": b"hi"}], "message 0: content is a text or a list of items, got b'hi'"),
        ([{"role": "user", "content": TEXT}], "message 0: content is a text or a list of items, got {'type': 'text', 'text': 'hi'}"),
        (
            [{"role": "user", "content": [TEXT, {"type": "video", "video": "a.mp4", "fps": 2.0}]}],
            "message 0, item 1: a video file states its frames a second itself, got 'fps': 2.0; to choose how many frames a second "
            "are shown, write 'sampling': {'fps': 2.0}",
        ),
        *(
            (
                [{"role": "user", "content": [{"type": "video", "video": [], "fps": fps}]}],
                f"message 0, item 0: 'fps' is a number of frames a second above 0, got {fps!r}",
            )
            for fps in (0, -1.0, float("inf"), float("nan"), True, "2")
        ),
        (
            [{"role": "user", "content": [{"type": "video", "video": "a.mp4", "sampling": 8}]}],
            "message 0, item 0: 'sampling' is an object such as {'fps': 1.0} or {'frames': 8}, got 8",
        ),
        (
            [{"role": "user", "content": [{"type": "video", "video": "a.mp4", "sampling": {"nframes": 8}}]}],
            "message 0, item 0: sampling.nframes: unknown field, did you mean 'frames'?",
        ),
        (
            [{"role": "user", "content": [{"type": "video", "video": "a.mp4", "sampling": {"fps": 0}}]}],
            "message 0, item 0: sampling: sampling.fps: expected more than 0 frames a second, got 0",
        ),
        *(
            (
                [{"role": "user", "content": [TEXT, item]}],
                "message 0, item 1: expected {'type': 'text', 'text': ...}, {'type': 'image', 'image': ...} or "
                "{'type': 'video', 'video': ...}, got " + repr(item),
            )
            for item in (
                "hi",
                {"type": "text"},
                {"type": "text", "text": 3},
                {"type": "image"},
                {"type": "image", "image": None},
                {"type": "image_url", "image_url": {}},
                {"type": "video"},
                {"type": "video", "video": None, "fps": 2},
                {"text": "hi"},
            )
        ),
    ],
)
def test_what_is_no_conversation_is_said_in_one_sentence_naming_message_and_item(conversation: Any, message: str) -> None:
    with pytest.raises(LayoutError) as caught:
        read_conversation(conversation)
    assert str(caught.value) == message


def test_a_long_value_is_shown_shortened() -> None:
    with pytest.raises(LayoutError) as caught:
        read_conversation([{"role": "user", "content": [{"type": "text", "text": ["x" * 1000]}]}])
    assert len(str(caught.value)) < 250
