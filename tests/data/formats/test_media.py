"""A row that names media which its sample does not hold is never a sample: in every format, whichever way the two came apart."""

from __future__ import annotations

import base64
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from published import ANNOTATIONS, MAKERS, parquet, picture, put, tar

import vlmkit
from vlmkit.conversation import read_conversation
from vlmkit.data.reading.media import DIFFER, OTHER_MEDIA, tag_in
from vlmkit.data.sample import DataError, Rejected, Sample

Row = dict[str, Any]


def read(kind: str, folder: Path, **options: Any) -> tuple[list[Sample], list[Rejected]]:
    items = list(vlmkit.formats[kind](folder, **options))
    return [item for item in items if isinstance(item, Sample)], [item for item in items if isinstance(item, Rejected)]


def said(samples: list[Sample]) -> set[str]:
    """What is taught: images with one conversation each."""
    return {repr((sample.images, conversation)) for sample in samples for conversation in sample.conversations}


def texts(sample: Sample) -> list[str]:
    turns = [turn for conversation in sample.conversations for turn in read_conversation(conversation)[0]]
    return [part for turn in turns for part in turn.content if isinstance(part, str)]


# --- every format ------------------------------------------------------------------------------------------------------

WORDS = {
    "chat": "What?",
    "coco": "A man with a red helmet.",
    "docvqa": "what is the date?",
    "gqa": "Is the sky dark?",
    "llava": "What are the colors?",
    "redcaps": "found this house",
    "textvqa": "what is the brand?",
}
"""A text in each annotation file of JSON, behind which a tag is put."""


def with_a_tag(kind: str, folder: Path, tag: str) -> None:
    """One tag more in the words of one row."""
    file = folder / ANNOTATIONS[kind]
    if kind in WORDS:
        text = file.read_text(encoding="utf-8")
        put(file, text.replace(f'{WORDS[kind]}"', f'{WORDS[kind]}{tag}"', 1))
        assert file.read_text(encoding="utf-8") != text
    elif kind == "synthtext":
        import numpy as np
        import scipy.io

        content = {name: cell for name, cell in scipy.io.loadmat(file).items() if not name.startswith("__")}
        content["txt"][0, 1] = np.array([tag])
        scipy.io.savemat(file, content)
    elif kind == "webdataset":
        changed = members(file)
        name, data = next((name, data) for name, data in changed if name == "two.json")
        changed[changed.index((name, data))] = name, data.replace(b"Same?", f"Same?{tag}".encode())
        tar(file, changed)
    else:
        import pyarrow.parquet

        field = {"cauldron": "texts", "pixmo_cap": "caption", "pixmo_clocks": "text"}.get(kind, "label")
        rows = pyarrow.parquet.ParquetFile(file).read().to_pylist()
        if kind == "cauldron":
            rows[0][field][0]["user"] += tag
        else:
            rows[0][field] += tag
        parquet(file, rows)


def members(file: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(file) as shard:
        return [(info.name, read.read()) for info in shard if (read := shard.extractfile(info)) is not None]


def without_an_image(kind: str, folder: Path, name: str | None) -> None:
    """The picture of one row under another name, or nowhere at all."""
    if kind == "webdataset":
        file = folder / ANNOTATIONS[kind]
        tar(
            file,
            [
                (name or "", data) if member == "two.1.jpg" else (member, data)
                for member, data in members(file)
                if name or member != "two.1.jpg"
            ],
        )
    elif kind == "cauldron":
        import pyarrow.parquet

        file = folder / ANNOTATIONS[kind]
        (row,) = pyarrow.parquet.ParquetFile(file).read().to_pylist()
        parquet(file, [row | {"images": [{"bytes": None, "path": name}]}])
    else:
        whole, _ = read(kind, folder)
        path = next(image for sample in whole for image in sample.images if isinstance(image, Path))
        if name is None:
            path.unlink()
        else:
            path.rename(path.with_name(name))


CHANGES: dict[str, Callable[[str, Path], None]] = {
    "an image removed": lambda kind, folder: without_an_image(kind, folder, None),
    "an image renamed": lambda kind, folder: without_an_image(kind, folder, "other.1.jpg"),
    "a tag of an image too many": lambda kind, folder: with_a_tag(kind, folder, "<image>"),
    "a tag of a film": lambda kind, folder: with_a_tag(kind, folder, "<video>"),
}


def test_all_formats_are_walked():
    assert len(MAKERS) == len([kind for kind in vlmkit.list_formats() if vlmkit.formats[kind].__module__.startswith("vlmkit.")]) == 14


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_row_whose_media_and_sample_differ_is_no_sample(kind, tmp_path):
    folder = MAKERS[kind](tmp_path / "set")
    whole = read(kind, folder)[0]
    for name, change in CHANGES.items():
        shutil.rmtree(folder)
        change(kind, MAKERS[kind](folder))
        samples, rejected = read(kind, folder)
        assert rejected, name
        assert all(item.reason and item.detail for item in rejected)
        assert said(samples) < said(whole), f"{name}: nothing else than before is taught, and something less"
        assert not [text for sample in samples for text in texts(sample) if tag_in(text)], name


# --- the spellings of a row --------------------------------------------------------------------------------------------

URI = f"data:image/jpeg;base64,{base64.b64encode(picture(7)).decode()}"
SHOWN = [{"type": "image"}, {"type": "text", "text": "What?"}]
ANSWER = {"role": "assistant", "content": "A dog."}


def user(content: Any) -> Row:
    return {"messages": [{"role": "user", "content": content}, ANSWER]}


def sharegpt(value: str) -> Row:
    return {"conversations": [{"from": "human", "value": value}, {"from": "gpt", "value": "A dog."}]}


def link(url: str) -> list[Row]:
    return [{"type": "image_url", "image_url": {"url": url}}, SHOWN[1]]


SPELLINGS: dict[str, Row] = {
    "ms-swift": user("<image>What?") | {"images": ["a.jpg"]},
    "ms-swift, an object": user("<image>What?") | {"images": [{"bytes": None, "path": "a.jpg"}]},
    "LLaMA-Factory": sharegpt("<image>What?") | {"images": ["a.jpg"]},
    "LLaMA-Factory, with the others' columns": sharegpt("<image>What?") | {"images": ["a.jpg"], "videos": [], "audios": None},
    "LLaVA": sharegpt("<image>\nWhat?") | {"id": "1", "image": "a.jpg"},
    "TRL": user(SHOWN) | {"images": ["a.jpg"]},
    "TRL, numbered": user([{"type": "image", "index": 0, "text": None}, SHOWN[1]]) | {"images": ["a.jpg"]},
    "items that name their image": user([{"type": "image", "image": "a.jpg"}, SHOWN[1]]),
    "both": user([{"type": "image", "image": "a.jpg"}, SHOWN[1]]) | {"images": ["a.jpg"]},
    "OpenAI, a path": user(link("a.jpg")),
    "a name for people": user("<image>What?") | {"images": ["a.jpg"], "image_file": "/elsewhere/a.jpg", "image_width": 16},
}
"""The same sample in the words of each tool, with the files a.jpg and b.jpg there."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.jpg", "b.jpg")):
        put(tmp_path / name, picture(number))
    return tmp_path


def read_row(folder: Path, row: Row, **options: Any) -> Sample | Rejected:
    put(folder / "data.jsonl", row)
    (item,) = vlmkit.formats["chat"](folder, **options)
    return item


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_row_is_read_as_its_tool_means_it(folder, name):
    item = read_row(folder, SPELLINGS[name])
    assert isinstance(item, Sample), item
    assert item.images == (folder / "a.jpg",)
    assert item.conversations == (
        [{"role": "user", "content": [{"type": "image", "image": 0}, {"type": "text", "text": "What?"}]}, ANSWER],
    )


def mutations(row: Row) -> dict[str, Row]:
    """What may happen to a row between its picture and its words."""
    text = json.dumps(row)
    column = next((name for name in ("images", "image") if row.get(name)), None)
    changed = {
        "renamed": json.loads(text.replace('"a.jpg"', '"c.jpg"')),
        "a tag too many": json.loads(text.replace("What?", "What?<image>")),
        "a tag of a film": json.loads(text.replace("What?", "What?<video>")),
        "a tag in the answer": json.loads(text.replace("A dog.", "A <image>.")),
        "a film": row | {"videos": ["a.mp4"]},
        "one film": row | {"video": "a.mp4"},
        "a sound": row | {"audios": ["a.wav"]},
        "another column": row | {"rejected_images": ["b.jpg"]},
    }
    if column is not None:
        rest = {name: value for name, value in row.items() if name != column}
        named_elsewhere = column == "images" and "a.jpg" in json.dumps(row.get("messages", ""))
        if not named_elsewhere:
            changed |= {"the column gone": rest, "the column empty": rest | {column: []}}
            changed["the column of another name"] = rest | {"image_paths": ["a.jpg"]}
        changed["an image more"] = rest | {"images": ["a.jpg", "b.jpg"]}
    if "<image>" in text:
        changed["a tag too few"] = json.loads(text.replace("<image>\\n", "").replace("<image>", ""))
    elif row.get("messages"):
        changed["an item too few"] = user("What?") | ({"images": ["a.jpg"]} if column else {"image_paths": ["a.jpg"]})
        changed["an item too many"] = row | user([{"type": "image"}, *row["messages"][0]["content"]])
    return changed


@pytest.mark.parametrize("name", SPELLINGS)
def test_whatever_is_lost_between_picture_and_words_costs_the_row(folder, name):
    changed = mutations(SPELLINGS[name])
    assert len(changed) >= 9
    reasons = {}
    for what, row in changed.items():
        item = read_row(folder, row)
        assert isinstance(item, Rejected), (what, item)
        reasons[what] = item.reason
    assert reasons.pop("renamed") == ("image is missing" if "image_file" not in changed["renamed"] else DIFFER)
    assert {reasons.pop(what) for what in ("a film", "one film", "a sound")} == {OTHER_MEDIA}
    assert set(reasons.values()) <= {DIFFER, "row has wrong fields"}


def test_pictures_in_the_row_itself(folder):
    item = read_row(folder, user(link(URI)))
    assert isinstance(item, Sample)
    assert item.images == (picture(7),)
    item = read_row(folder, user("<image><image>Same?") | {"images": [URI, "a.jpg"]})
    assert isinstance(item, Sample)
    assert item.images == (picture(7), folder / "a.jpg")
    item = read_row(folder, user(link("https://example.org/a.jpg")))
    assert isinstance(item, Rejected)
    assert item.reason == "image is a URL"
    item = read_row(folder, user([{"type": "image", "base64": URI.partition(",")[2]}, SHOWN[1]]))
    assert isinstance(item, Sample)
    assert item.images == (picture(7),)


@pytest.mark.parametrize("below", [True, False])
def test_a_local_file_may_be_named_by_a_url(folder, below):
    """As qwen-vl-utils has it: by its whole path, and here below the folder too."""
    url = "file://a.jpg" if below else (folder / "a.jpg").as_uri()
    for row in (user([{"type": "image", "image": url}, SHOWN[1]]), user(link(url)), user("<image>What?") | {"images": [url]}):
        item = read_row(folder, row)
        assert isinstance(item, Sample), item
        assert item.images == (folder / "a.jpg",)


def test_an_item_that_names_nothing_is_said(folder):
    item = read_row(folder, user([{"type": "image", "source": {"type": "base64", "data": "AAAA"}}, SHOWN[1]]))
    assert isinstance(item, Rejected)
    assert item.reason == DIFFER
    assert "'source': " in item.detail
    assert "names no image under path, image, url or base64, and no column of the row does" in item.detail


def test_images_stand_where_their_tags_stood_in_any_turn(folder):
    turns = [("human", "One <image> two\n<image>\nthree"), ("gpt", "Yes."), ("human", "<image>"), ("gpt", "No.")]
    row = {"conversations": [{"from": role, "value": value} for role, value in turns], "images": ["a.jpg", "b.jpg", "a.jpg"]}
    item = read_row(folder, row | {"system": "Be brief."})
    assert isinstance(item, Sample)
    assert [path.name for path in item.images if isinstance(path, Path)] == ["a.jpg", "b.jpg", "a.jpg"]
    said, _ = read_conversation(item.conversations[0])
    assert [turn.content for turn in said] == [("Be brief.",), ("One ", 0, " two", 1, "three"), ("Yes.",), (2,), ("No.",)]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=3), st.integers(0, 4), st.integers(0, 1), st.booleans())
def test_a_row_is_a_sample_where_its_tags_are_as_many_as_its_images(tmp_path_factory, tags, images, answered, separate):
    folder = tmp_path_factory.mktemp("row")
    put(folder / "a.jpg", picture())
    turns: list[Row] = []
    for count in tags:
        said: Any = "<image>" * count + "What?"
        if separate:
            said = [{"type": "text", "text": said}]
        turns += [{"role": "user", "content": said}, {"role": "assistant", "content": "A dog."}]
    turns[1]["content"] += " <image>" * answered
    item = read_row(folder, {"messages": turns, "images": ["a.jpg"] * images})
    if sum(tags) == images and not answered:
        assert isinstance(item, Sample)
        assert item.images == (folder / "a.jpg",) * images
        assert not any(tag_in(text) for text in texts(item))
    else:
        assert isinstance(item, Rejected)
        assert item.reason == DIFFER


def test_images_without_a_place_are_rejected_or_stand_first(folder):
    row = user("What?") | {"images": ["a.jpg", "b.jpg"]}
    item = read_row(folder, row)
    assert isinstance(item, Rejected)
    assert "untagged=first" in item.detail
    item = read_row(folder, row, untagged="first")
    assert isinstance(item, Sample)
    assert read_conversation(item.conversations[0])[0][0].content == (0, 1, "What?")
    assert isinstance(read_row(folder, user("<image>What?") | {"images": ["a.jpg", "b.jpg"]}, untagged="first"), Rejected)
    with pytest.raises(DataError, match="untagged is 'last', expected one of reject, first"):
        read_row(folder, row, untagged="last")


def test_rows_of_words_alone_stay_samples(folder):
    html = "Write <video src='a.mp4'></video> or <video></video>, <img src='a.png'> and <b>."
    for row in (
        user(html),
        sharegpt(html) | {"images": [], "videos": None, "image": ""},
        user("What?") | {"image_id": 5, "image_size": [1, 2]},
    ):
        item = read_row(folder, row)
        assert isinstance(item, Sample), item
        assert item.images == ()


@pytest.mark.parametrize("name", ["train.json", "train.parquet"])
def test_lists_and_tables_are_read_as_lines_are(folder, name):
    rows = [dict(SPELLINGS["TRL"]), user(SHOWN) | {"images": []}]
    if name.endswith(".json"):
        put(folder / name, rows)
    else:
        answer = [{"type": "text", "text": "A dog."}]  # columns of a table are of one type
        for row in rows:
            row |= {"images": [{"bytes": picture(3), "path": "x.jpg"}] * len(row["images"])}
            row["messages"] = [row["messages"][0], {"role": "assistant", "content": answer}]
        parquet(folder / name, rows)
    samples, rejected = read("chat", folder, name=name)
    assert [sample.images for sample in samples] == [(picture(3) if name.endswith(".parquet") else folder / "a.jpg",)]
    assert [item.reason for item in rejected] == [DIFFER]


@pytest.mark.parametrize("ending", ["mp4", "wav", "jxl"])
def test_a_tar_with_media_of_another_kind_gives_no_sample(tmp_path, ending):
    tar(tmp_path / "a.tar", [("0.jpg", picture()), (f"0.{ending}", b"?"), ("0.txt", b"words"), ("1.jpg", picture()), ("1.txt", b"words")])
    samples, rejected = read("webdataset", tmp_path)
    assert [sample.id for sample in samples] == ["a/1"]
    assert [item.reason for item in rejected] == [OTHER_MEDIA]


def test_a_json_of_a_tar_names_what_its_members_are(tmp_path):
    tagged = sharegpt("<image>What?")
    bodies = [tagged, tagged | {"images": ["a", "b"]}, tagged | {"video": "a.mp4"}, user("<image>What?"), user("What?")]
    shard = [
        (f"{number}.{ending}", data)
        for number, body in enumerate(bodies)
        for ending, data in (("jpg", picture()), ("json", json.dumps(body).encode()))
    ]
    tar(tmp_path / "a.tar", [*shard, ("9.json", json.dumps(tagged | {"image": "9.jpg"}).encode())])
    samples, rejected = read("webdataset", tmp_path)
    assert [sample.id for sample in samples] == ["a/0", "a/3"]
    assert {item.id: item.reason for item in rejected} == {"a/1": DIFFER, "a/2": OTHER_MEDIA, "a/4": DIFFER, "a/9": DIFFER}


def test_a_table_with_films_gives_no_sample(tmp_path):
    image = {"bytes": picture(), "path": None}
    row = {"images": [image], "texts": [{"user": "What?", "assistant": "A dog."}]}
    parquet(tmp_path / "a.parquet", [row | {"videos": ["a.mp4"]}, row | {"videos": []}])
    samples, rejected = read("cauldron", tmp_path)
    assert (len(samples), [item.reason for item in rejected]) == (1, [OTHER_MEDIA])


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("<image>", "<image>"),
        ("a <audio> b", "<audio>"),
        ("<image_00>", "<image_00>"),
        ("<|image_1|>", "<|image_1|>"),
        ("<image 2>", "<image 2>"),
        ("Picture 1: <img>a.jpg</img>", "<img>a.jpg</img>"),
        ("<ImageHere>", "<ImageHere>"),
        ("<video></video><audio></audio>", None),
        ("<img src='a'> <images> < image> image", None),
        ("<|image_pad|>", None),
    ],
)
def test_what_is_a_tag(text, tag):
    assert tag_in(text) == tag


def test_nothing_read_is_no_success(tmp_path, capsys):
    from vlmkit.cli import main

    put(tmp_path / "set/data.jsonl", "\n".join(json.dumps(user("<image>What?") | {"videos": ["a.mp4"]}) for _ in range(3)))
    argv = ["data", "pack", "--format", "chat", "--workers", "0", "--max-rejected", "1", str(tmp_path / "set"), str(tmp_path / "packed")]
    assert main(argv) == 1
    assert "no sample can be used" in (told := capsys.readouterr().err)
    assert f"3  {OTHER_MEDIA}" in told
