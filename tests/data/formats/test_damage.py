"""Damaged data: never an exception but DataError, and nothing goes missing that is not counted."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import tarfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from published import ANNOTATIONS, MAKERS, parquet, picture, put, tar

import vlmkit
from vlmkit.conversation import pictures, read_conversation
from vlmkit.data.rejections import Rejections
from vlmkit.data.sample import DataError, Rejected, Sample
from vlmkit.preprocess.images import ImageError, decode

EXAMPLES = 40
"""Of each property and format; thirty times as many were run when they were written."""


def read(kind: str, folder: Path) -> tuple[list[Sample], list[Rejected]]:
    """What a reader yields; a data set that cannot be used at all counts as one rejection."""
    samples: list[Sample] = []
    rejected: list[Rejected] = []
    try:
        for item in vlmkit.formats[kind](folder):
            (rejected if isinstance(item, Rejected) else samples).append(item)
    except DataError as error:
        assert str(error).isprintable() or "\n" in str(error)
        assert "A reader yields a Rejected" not in str(error), "a reader of vlmkit's own failed"
        rejected.append(Rejected("", "", "", str(error)))
    return samples, rejected


def sound(sample: Sample, folder: Path) -> bool:
    """What whoever takes a sample may rely on."""
    inside = all(isinstance(image, bytes) or image.resolve().is_relative_to(folder.resolve()) for image in sample.images)
    turns = [read_conversation(conversation) for conversation in sample.conversations]
    sample.id.encode()
    json.dumps(sample.conversations, ensure_ascii=False).encode()
    return inside and all(pictures(shown) == list(range(len(sample.images))) and said[-1].role == "assistant" for said, shown in turns)


def conversations(samples: list[Sample]) -> int:
    return sum(len(sample.conversations) for sample in samples)


@st.composite
def damages(draw: st.DrawFn, content: bytes) -> bytes:
    """A byte changed, or the file cut short."""
    place = draw(st.integers(0, len(content) - 1))
    if draw(st.booleans()):
        return content[:place]
    other = draw(
        st.sampled_from([bytes([content[place] ^ 1 << bit]) for bit in range(8)] + [b"\0", b"\xff", b"{", b"]", b'"', b"9", b"\\"])
    )
    return content[:place] + other + content[place + 1 :]


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_damaged_annotation_file_loses_nothing_uncounted(kind, tmp_path_factory):
    folder = MAKERS[kind](tmp_path_factory.mktemp(kind))
    file = folder / ANNOTATIONS[kind]
    content = file.read_bytes()
    whole = conversations(read(kind, folder)[0])

    # A process for every gt.mat takes its time.
    @settings(max_examples=4 if kind == "synthtext" else EXAMPLES)
    @given(damages(content))
    def damaged(changed: bytes) -> None:
        file.write_bytes(changed)
        samples, rejected = read(kind, folder)
        lines_left = kind == "chat" and content.startswith(changed) and content[len(changed) - 1 : len(changed) + 1].count(b"\n")
        if not lines_left:  # lines of JSON do not say how many they are
            assert conversations(samples) >= whole or rejected
        assert all(sound(sample, folder) for sample in samples)

    damaged()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Paths to every value inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in places(item, (*path, key)))]


def replaced(value: object, path: tuple, other: object) -> object:
    if not path:
        return other
    key, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = replaced(copy[key], tuple(rest), other)
    return copy


@pytest.mark.parametrize("kind", ["coco", "redcaps", "gqa", "textvqa", "docvqa", "llava", "chat"])
def test_values_of_any_type_in_any_place(kind, tmp_path_factory):
    folder = MAKERS[kind](tmp_path_factory.mktemp(kind))
    file = folder / ANNOTATIONS[kind]
    text = file.read_text(encoding="utf-8")
    content = json.loads(text.splitlines()[0] if kind == "chat" else text)
    put(file, content)
    whole = conversations(read(kind, folder)[0])

    @settings(max_examples=EXAMPLES)
    @given(st.sampled_from(places(content)), JSON)
    def changed(path: tuple, other: object) -> None:
        put(file, replaced(content, path, other))
        samples, rejected = read(kind, folder)
        emptied = isinstance(other, list | dict) or (kind == "gqa" and not path)
        assert conversations(samples) >= whole or rejected or emptied
        assert all(sound(sample, folder) for sample in samples)

    changed()


@settings(max_examples=EXAMPLES)
@given(damages(picture(7)))
def test_a_damaged_picture_is_a_picture_or_an_image_error(content):
    """Readers do not decode; whoever does meets one kind of error."""
    try:
        assert decode(content).ndim == 3
    except ImageError as error:
        assert str(error)


def test_a_tar_cut_anywhere_gives_what_is_whole_and_one_rejection(tmp_path):
    members = [(f"{number}.{ending}", data) for number in range(3) for ending, data in (("jpg", picture(number)), ("txt", b"words"))]
    whole = tar(tmp_path / "a.tar", members).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for size in range(0, end, 97):
        (tmp_path / "a.tar").write_bytes(whole[:size])
        samples, rejected = read("webdataset", tmp_path)
        assert [item.reason for item in rejected] == ["tar is cut short"], size
        assert all(sample.images == (picture(number),) for number, sample in enumerate(samples))
        assert len(samples) <= 2
    assert samples, "samples before the cut are kept"
    for cut in ("a.tar.gz", "b.tgz"):
        (tmp_path / "a.tar").unlink(missing_ok=True)
        (tmp_path / cut).write_bytes(gzip.compress(whole)[:500])
        samples, rejected = read("webdataset", tmp_path)
        assert [item.reason for item in rejected] == ["tar is cut short"]
        (tmp_path / cut).unlink()


def test_what_stands_behind_the_end_of_a_tar_is_not_lost_in_silence(tmp_path):
    """Two tars that were put one behind the other with `cat`; and what old tools leave behind the end, which is nothing."""
    one, two = (tar(tmp_path / "a.tar", [(f"{n}.jpg", picture(n)), (f"{n}.txt", b"words")]).read_bytes() for n in range(2))
    for content in (one + two, one + bytes(40 * 512) + two):
        for name, written in (("a.tar", content), ("a.tar.gz", gzip.compress(content))):
            (tmp_path / name).write_bytes(written)
            samples, rejected = read("webdataset", tmp_path)
            assert [sample.id for sample in samples] == ["a/0"]
            assert [item.reason for item in rejected] == ["tar goes on behind its end"]
            (tmp_path / name).unlink()
    (tmp_path / "a.tar").write_bytes(one + b"left over from before")
    assert [len(found) for found in read("webdataset", tmp_path)] == [1, 0]


@pytest.mark.parametrize("damage", [lambda content: content[:-6], lambda content: content[:-8] + b"\0\0\0\0" + content[-4:]])
def test_a_compressed_tar_that_is_not_what_was_compressed_is_counted(tmp_path, damage):
    content = tar(tmp_path / "a.tar", [("0.jpg", picture()), ("0.txt", b"words")]).read_bytes()
    (tmp_path / "a.tar").unlink()
    (tmp_path / "a.tar.gz").write_bytes(damage(gzip.compress(content)))
    assert [item.reason for item in read("webdataset", tmp_path)[1]] == ["tar is cut short"]


def test_links_and_devices_in_a_tar_are_not_followed(tmp_path):
    put(tmp_path / "secret", b"secret")
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name, kind in (("a.jpg", tarfile.SYMTYPE), ("b.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.FIFOTYPE), ("d.jpg", tarfile.DIRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "secret"
            shard.addfile(info)
            caption = tarfile.TarInfo(f"{name[0]}.txt")
            caption.size = 5
            shard.addfile(caption, io.BytesIO(b"words"))
    samples, rejected = read("webdataset", tmp_path)
    assert not samples
    assert [item.reason for item in rejected] == ["tar member is no file"] * 3 + ["images and text differ"]


def test_a_header_that_goes_backwards_ends_the_shard(tmp_path):
    """Python up to 3.13.5 reads such a tar for ever (CVE-2025-8194)."""
    shard = bytearray(tar(tmp_path / "a.tar", [("a.txt", b"words"), ("b.txt", b"words")]).read_bytes())
    header = shard[1024:1536]
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"  # -1024 in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    shard[1024:1536] = header
    (tmp_path / "a.tar").write_bytes(shard)
    _, rejected = read("webdataset", tmp_path)
    assert "tar is cut short" in {item.reason for item in rejected}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set beside which there is something that is not its own."""
    put(tmp_path / "outside.jpg", picture())
    put(tmp_path / "outside" / "1.jpg", picture())
    folder = tmp_path / "set"
    put(folder / "images" / "1.jpg", picture())
    put(folder / "empty.jpg", b"")
    (folder / "out.jpg").symlink_to(tmp_path / "outside.jpg")
    (folder / "folder").symlink_to(tmp_path / "outside")
    (folder / "in.jpg").symlink_to(folder / "images" / "1.jpg")
    (folder / "back").symlink_to(folder / "images")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    return folder


PATHS = {
    "images/1.jpg": None,
    "./images/../images/1.jpg": None,
    "in.jpg": None,
    "back/1.jpg": None,
    "../outside.jpg": "image leaves the folder",
    "/etc/passwd": "image leaves the folder",
    "out.jpg": "image leaves the folder",
    "folder/1.jpg": "image leaves the folder",
    "folder/absent.jpg": "image leaves the folder",
    "../set-2/1.jpg": "image leaves the folder",
    "back/../../outside.jpg": "image leaves the folder",
    "images": "image is no file",
    "images/..": "image is no file",
    "pipe.jpg": "image is no file",
    "empty.jpg": "image is empty",
    "loop.jpg": "image is missing",
    "absent.jpg": "image is missing",
    "images/1.jpg/2.jpg": "image is missing",
    "a\0b": "image is missing",
    "\ud800.jpg": "image is missing",
    "x" * 5000: "image is missing",
}


@pytest.mark.parametrize("kind", ["chat", "llava", "docvqa", "cauldron"])
def test_a_path_stays_in_its_folder(folder, kind):
    for path, reason in PATHS.items():
        if kind == "chat":
            content = [{"type": "image", "path": path}]
            put(folder / "data.jsonl", {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "?"}]})
        elif kind == "llava":
            turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "?"}]
            put(folder / "a.json", [{"id": 1, "image": path, "conversations": turns}])
        elif kind == "docvqa":
            put(folder / "train_v1.0.json", {"data": [{"image": path, "question": "?", "answers": ["?"]}]})
        elif "\ud800" not in path:
            row = {"images": [{"bytes": None, "path": path}], "texts": [{"user": "?", "assistant": "?"}]}
            parquet(folder / "a.parquet", [row])
        samples, rejected = read(kind, folder)
        if reason is None:
            (sample,) = samples
            assert sample.images == ((folder / "images" / "1.jpg").resolve(),)
        else:
            assert not samples, path
            # LLaVA and DocVQA look in several places, where the path may mean nothing at all; DocVQA's ids are paths.
            assert len(rejected) == 1
            assert rejected[0].reason in (reason, "image is missing", "row has wrong fields"), path[:100]


@pytest.mark.parametrize(("kind", "place"), [("webdataset", "b.tar"), ("cauldron", "tqa/b.parquet"), ("redcaps", "annotations/b.json")])
def test_a_link_to_nowhere_is_a_lost_file_and_not_none(tmp_path, kind, place):
    """As a cache of downloads leaves them."""
    folder = MAKERS[kind](tmp_path)
    whole, _ = read(kind, folder)
    (folder / place).symlink_to("../blobs/absent")
    samples, (rejected,) = read(kind, folder)
    assert samples == whole
    assert rejected.reason in ("tar is cut short", "annotation file is broken")
    assert "No such file" in rejected.detail


def test_pipes_and_folders_that_are_called_like_files_are_not_opened(tmp_path):
    folder = MAKERS["webdataset"](tmp_path)
    os.mkfifo(folder / "pipe.tar")
    (folder / "folder.tar").mkdir()
    samples, rejected = read("webdataset", folder)
    assert (len(samples), rejected) == (3, [])


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b", "x" * 5000, "**x", "[", "/absent", 5, None])
def test_a_name_of_no_file_is_told_with_what_is_there(tmp_path, name):
    with pytest.raises(DataError, match=r"has no .*; it holds data\.jsonl, images\. Name the file of conversations"):
        list(vlmkit.formats["chat"](MAKERS["chat"](tmp_path), name=name))


@pytest.mark.parametrize("name", ["data [v1].jsonl", "/tmp/../{}/data [v1].jsonl"])
def test_a_name_of_a_file_is_taken_as_it_is(tmp_path, name):
    (MAKERS["chat"](tmp_path) / "data.jsonl").rename(tmp_path / "data [v1].jsonl")
    assert len(list(vlmkit.formats["chat"](tmp_path, name=name.format(tmp_path)))) == 3


@pytest.mark.parametrize("closed", [".", "tqa"])
def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(tmp_path, closed, monkeypatch):
    folder = MAKERS["cauldron"](tmp_path)
    scan = os.scandir

    def refuse(path):
        if Path(path) == folder / closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=rf"{folder / closed} cannot be read: Permission denied"):
        list(vlmkit.formats["cauldron"](folder))


def test_texts_that_no_model_should_see(tmp_path):
    put(tmp_path / "a.jpg", picture())
    texts = {"fine": None, "x" * 10**6: "text is too long", "\ud800": "text is no Unicode", " \n": "no answer", "a\0b\u202e": None}
    for text, reason in texts.items():
        content = [{"type": "image", "path": "a.jpg"}]
        put(tmp_path / "data.jsonl", {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": text}]})
        samples, rejected = read("chat", tmp_path)
        assert [item.reason for item in rejected] == ([] if reason is None else [reason])
        assert len(samples) == (reason is None)
        assert all(len(item.detail) < 1000 for item in rejected)
    put(tmp_path / "data.jsonl", b'{"messages": [{"role": "user", "content": "\xff"}, {"role": "assistant", "content": "?"}]}')
    assert [item.reason for item in read("chat", tmp_path)[1]] == ["text is no Unicode"]


def test_one_bad_conversation_of_several_costs_itself(tmp_path):
    folder = MAKERS["coco"](tmp_path)
    file = folder / ANNOTATIONS["coco"]
    content = json.loads(file.read_text())
    content["annotations"][0]["caption"] = "x" * 10**6
    content["annotations"].append({"image_id": 391895, "id": 1, "caption": 5})
    put(file, content)
    rejections = Rejections()
    samples = list(rejections.kept(vlmkit.formats["coco"](folder)))
    assert [len(sample.conversations) for sample in samples] == [1, 1]
    assert rejections.by_reason(folder.name) == {"row has wrong fields": 1, "text is too long": 1}


def test_a_broken_file_that_is_read_twice_is_counted_once(tmp_path):
    folder = MAKERS["coco"](tmp_path)
    file = folder / ANNOTATIONS["coco"]
    file.write_bytes(file.read_bytes()[:-30])
    _, rejected = read("coco", folder)
    assert [item.reason for item in rejected] == ["annotation file is broken"]


def test_nesting_without_end_is_one_bad_row_or_file(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    good = json.dumps({"id": 1, "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}]})
    put(tmp_path / "a.json", f'[{good}, {{"id": 2, "conversations": {deep}}}]')
    samples, rejected = read("llava", tmp_path)
    assert len(samples) == 1
    assert [item.reason for item in rejected] == ["annotation file is broken"]
    put(tmp_path / "data.jsonl", f'{{"messages": {deep}}}\n{{"messages": {"[" * 900}{"]" * 900}}}')
    samples, rejected = read("chat", tmp_path)
    assert not samples
    assert [item.reason for item in rejected] == ["row is not JSON", "row has wrong fields"]


def test_what_is_read_is_counted_once(tmp_path):
    """kept() counts everything that a reader yields, samples and rejections."""
    folder = MAKERS["redcaps"](tmp_path)
    rows = itertools.repeat({"image_id": "absent", "subreddit": "a", "caption": "b"}, 5)
    put(folder / "annotations" / "a_2018.json", {"annotations": list(rows)})
    rejections = Rejections()
    assert len(list(rejections.kept(vlmkit.formats["redcaps"](folder)))) == 2
    assert rejections.share(folder.name) == 5 / 7
