from __future__ import annotations

import io
import json
import pickle
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.format import open_memmap
from PIL import Image

from tests.data.packs import conversation, jpeg, sample
from tests.photos import picture
from vlmkit.data.formats import formats
from vlmkit.data.sample import DataError, Rejected, Sample
from vlmkit.data.shards import Shards, ShardWriter
from vlmkit.data.shards.index import INDEX, PACKING, ROW, ROWS, SIZES, Shard, Summary, written_index
from vlmkit.data.shards.members import to_members
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.images import FORMATS, decode, image_size


def written(directory: Path, samples: list[Sample], **options: Any) -> Shards:
    with ShardWriter(directory, **options) as writer:
        for sample in samples:
            assert writer.write(sample)
    return Shards(directory)


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
SAMPLES = st.builds(
    lambda images, texts, name: Sample(
        tuple(jpeg(number, 8 + number, 16) for number in images),
        tuple(
            [
                {"role": "user", "content": [*({"type": "image", "image": k} for k in range(len(images))), {"type": "text", "text": text}]},
                {"role": "assistant", "content": text},
            ]
            for text in texts
        ),
        "source",
        name,
    ),
    st.lists(st.integers(0, 5), max_size=3),
    st.lists(TEXTS, min_size=1, max_size=3),
    TEXTS,
)


@settings(max_examples=40, deadline=None)
@given(samples=st.lists(SAMPLES, min_size=1, max_size=5), shard_bytes=st.sampled_from([1, 5000, 1 << 20]))
def test_samples_come_back_as_they_were_and_the_index_knows_them(tmp_path_factory, samples, shard_bytes):
    shards = written(tmp_path_factory.mktemp("drawn") / "shards", samples, shard_bytes=shard_bytes)
    assert list(shards) == samples
    for number, expected in enumerate(samples):
        assert shards.image_sizes(number) == tuple(Size(*decode(image).shape[:2]) for image in expected.images)
        said = [text for turns in expected.conversations for text in (turns[0]["content"][-1]["text"], turns[1]["content"])]
        assert shards.text_bytes(number) == sum(len(text.encode()) for text in said)
        assert shards.without_images(number) == Sample((), expected.conversations, expected.source, expected.id)
        assert shards.images(number) == expected.images


def test_numbers_slices_sources_and_copies_in_other_processes(tmp_path):
    samples = [sample(number, "ab"[number % 2]) for number in range(7)]
    shards = written(tmp_path / "shards", samples, shard_bytes=3000)
    assert len(shards.summary.shards) > 1
    assert (shards[-1], shards[1:3], len(shards)) == (samples[-1], samples[1:3], 7)
    assert [shards.source(number) for number in range(7)] == list("abababa")
    assert pickle.loads(pickle.dumps(shards))[3] == samples[3]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(shards.__getitem__, [*range(7)] * 20)) == samples * 20
    for number in (7, -8):
        with pytest.raises(IndexError, match=f"has 7 samples, asked for number {number}"):
            shards[number]


def test_other_tools_read_the_shards(tmp_path):
    samples = [Sample((jpeg(1), picture_as("PNG")), (conversation(1, 2), conversation(2, 2)), "shards", "one"), sample(2, "shards")]
    written(tmp_path / "shards", samples)
    shard = tmp_path / "shards" / "shard-000000.tar"
    with tarfile.open(shard) as tar:
        assert tar.getnames() == ["000000000.json", "000000000.0.jpg", "000000000.1.png", "000000001.json", "000000001.0.jpg"]
        assert tar.extractfile("000000000.1.png").read() == samples[0].images[1]
        assert shard.stat().st_size % tarfile.RECORDSIZE == 0
    webdataset = pytest.importorskip("webdataset")
    found = list(webdataset.WebDataset(str(shard), shardshuffle=False).decode("pil"))
    assert [sorted(key for key in row if not key.startswith("__")) for row in found] == [["0.jpg", "1.png", "json"], ["0.jpg", "json"]]
    assert found[0]["json"]["conversations"] == [*samples[0].conversations]
    assert found[1]["0.jpg"].size == (32, 22)
    again = list(formats["webdataset"](tmp_path / "shards"))
    assert [(item.images, item.conversations) for item in again] == [(item.images, item.conversations) for item in samples]


def picture_as(format: str) -> bytes:
    file = io.BytesIO()
    sizes = {"sizes": [(40, 30)]} if format == "ICO" else {}
    picture("chelsea", (30, 40)).save(file, format.replace(" ", ""), **sizes)
    return file.getvalue()


@pytest.mark.parametrize("format", [format for format in FORMATS if format != "HEIC"])
def test_every_format_has_its_ending_and_its_size_in_both_ways(format):
    data = picture_as(format)
    assert image_size(data) == Size(30, 40)
    for whole in (True, False):
        made = to_members(Sample((data,), (conversation(0),), "a", "1"), "k", whole=whole)
        assert made.sizes == (Size(30, 40),)
        expected = {"JPEG": "jpg", "JPEG 2000": "jp2"}.get(format, format.lower())
        assert made.pictures.startswith(f"k.0.{expected}\0".encode())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_the_upright_picture(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture("chelsea", (30, 40)).save(file, "JPEG", exif=exif)
    assert image_size(file.getvalue()) == Size(*decode(file.getvalue()).shape[:2])


CASES: list[tuple[Callable[[Path], Sample], str, str]] = [
    (lambda _: Sample((jpeg(0)[:-200],), (conversation(0),), "a", "1"), "image cannot be opened", "1: bytes of length"),
    (lambda _: Sample((b"",), (conversation(0),), "a", "1"), "image cannot be opened", "no picture"),
    (lambda _: Sample((b"%PDF-1.4",), (conversation(0),), "a", "1"), "image cannot be opened", "no picture"),
    (lambda folder: Sample((folder / "no.jpg",), (conversation(0),), "a", "1"), "image is missing", "no.jpg' is not there"),
    (lambda folder: Sample((folder,), (conversation(0),), "a", "1"), "image cannot be read", "Is a directory"),
    (lambda _: Sample((), (conversation(0),), "a", "1"), "row has wrong fields", "shows image '0' of a sample that has 0"),
    (lambda _: Sample((), ([{"role": "robot", "content": ""}],), "a", "1"), "row has wrong fields", "role 'robot'"),
    (lambda _: Sample((), ([{"role": "user", "content": "\ud800"}],), "a", "1"), "text is no Unicode", "half of a character"),
    (lambda _: Sample((), ([{"role": "user", "content": "a", "x": b""}],), "a", "1"), "row has wrong fields", "not JSON"),
]


@pytest.mark.parametrize(("make", "reason", "words"), CASES)
def test_what_cannot_be_used_is_rejected_with_its_reason(tmp_path, make, reason, words):
    made = to_members(make(tmp_path), "k")
    assert isinstance(made, Rejected)
    assert (made.source, made.id, made.reason) == ("a", "1", reason)
    assert words in made.detail
    with ShardWriter(tmp_path / "shards") as writer:
        assert not writer.write(make(tmp_path))
        assert writer.write(sample(1))
    assert Shards(tmp_path / "shards").rejections.by_reason("a") == {reason: 1}


def test_a_file_cut_short_goes_unnoticed_where_only_headers_are_read():
    cut = Sample((jpeg(0, 240, 320)[:-2000],), (conversation(0),), "a", "1")
    assert to_members(cut, "k", whole=False).sizes == (Size(240, 320),)
    assert isinstance(to_members(cut, "k"), Rejected)


@pytest.mark.parametrize("at", [0, 600, 1500, -700])
def test_a_byte_that_changed_is_noticed(tmp_path, at):
    shards = written(tmp_path / "shards", [sample(0)])
    shard = tmp_path / "shards" / "shard-000000.tar"
    data = bytearray(shard.read_bytes())
    place = at if at >= 0 else int(shards.tables.rows["text"][0] + shards.tables.rows["pictures"][0]) + at
    data[place] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"shard-000000\.tar, sample 0: the bytes are not those"):
        Shards(tmp_path / "shards")[0]


def test_a_shard_that_is_missing_or_cut_short_is_named(tmp_path):
    shards = written(tmp_path / "shards", [sample(0)])
    shard = tmp_path / "shards" / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataError, match="has 10239 bytes, the index says 10240; was it copied to its end"):
        shards[0]
    shard.unlink()
    with pytest.raises(DataError, match="is not there, though the index names it"):
        shards[0]


def test_what_is_no_directory_of_shards(tmp_path):
    with pytest.raises(DataError, match="is no directory that 'vlmkit data pack' wrote"):
        Shards(tmp_path / "none")
    written(tmp_path / "shards", [sample(0)])
    for name in (ROWS, SIZES):
        data = (tmp_path / "shards" / name).read_bytes()
        (tmp_path / "shards" / name).write_bytes(data[:-4])
        with pytest.raises(DataError, match=rf"{name} cannot be read \(it is no table"):
            Shards(tmp_path / "shards")
        (tmp_path / "shards" / name).write_bytes(data)
    index = tmp_path / "shards" / INDEX
    good = json.loads(index.read_text())
    for wrong, words in (
        (good | {"version": 9}, "version 9, expected 2"),
        (good | {"samples": 2}, "not what was written"),
        ([], "cannot be read"),
    ):
        index.write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=words):
            Shards(tmp_path / "shards")


def test_an_index_of_ten_million_rows_opens_at_once_and_takes_no_memory(tmp_path):
    count = 10**7
    places = np.random.default_rng(0).integers(0, count, 1000).tolist()
    rows = open_memmap(tmp_path / ROWS, mode="w+", dtype=ROW, shape=(count,))  # a file with holes: what is not set is not there
    sizes = open_memmap(tmp_path / SIZES, mode="w+", dtype="<u4", shape=(count, 2))
    rows["images"][places] = 1
    rows["first_image"][places] = places
    sizes[places] = (480, 640)
    summary = Summary(count, count, ("a",), (Shard("shard-000000.tar", count, 100),), {}, {})
    (tmp_path / INDEX).write_bytes(written_index(summary, {ROWS: rows, SIZES: sizes}))
    del rows, sizes
    before = memory()
    start = time.perf_counter()
    shards = Shards(tmp_path)
    assert time.perf_counter() - start < 1  # measured 0.005
    assert {shards.image_sizes(place) for place in places} == {(Size(480, 640),)}
    assert len(shards) == count
    assert memory() - before < 5e6


def memory() -> int:
    """Bytes of this process that no file holds."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


def test_what_was_written_is_read_back_before_it_counts(tmp_path):
    class Spoiler(Executor):
        """A disk that loses a bit."""

        def submit(self, function: Callable[..., Any], /, shard: Path, rows: Any) -> Future[Any]:
            data = bytearray(shard.read_bytes())
            data[700] ^= 1
            shard.write_bytes(data)
            done: Future[Any] = Future()
            try:
                done.set_result(function(shard, rows))
            except DataError as error:
                done.set_exception(error)
            return done

    with pytest.raises(DataError, match="was read back other than it was written"), ShardWriter(tmp_path, executor=Spoiler()) as writer:
        writer.write(sample(0))
    with pytest.raises(DataError, match="was not packed to its end"):
        Shards(tmp_path)
    assert list(written(tmp_path, [sample(1)])) == [sample(1)]


def test_a_directory_that_no_file_system_has_is_a_sentence(tmp_path):
    (tmp_path / "one").symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(tmp_path / "one")
    for name in ("one", "nul\0", "n" * 300):
        with pytest.raises(DataError, match=r"cannot be opened|is no directory that"):
            Shards(tmp_path / name)


def test_nobody_else_s_directory_is_written_to(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="holds something else"):
        ShardWriter(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    folder = tmp_path / "shards"
    with ShardWriter(folder, job={"split": "train"}) as writer:
        with pytest.raises(DataError, match="is being written by another process"):
            ShardWriter(folder, job={"split": "train"})
        writer.write(sample(0))
        writer.abandon()
    with ShardWriter(folder, job={"split": "val"}, shard_bytes=1) as writer:  # nothing was finished that would differ
        writer.bookmark = "behind 0"
        writer.write(sample(0))
        writer.bookmark = "behind 1"
        writer.abandon()
    with pytest.raises(DataError, match="was begun otherwise: split was 'val', is 'train'"):
        ShardWriter(folder, job={"split": "train"}, shard_bytes=1)
    assert (folder / PACKING).is_dir()
    with ShardWriter(folder, job={"split": "val"}, shard_bytes=1) as writer:
        assert (writer.samples, writer.bookmark) == (1, "behind 0")
    assert list(Shards(folder)) == [sample(0)]
    with pytest.raises(DataError, match="holds packed samples already"):
        ShardWriter(folder, job={"split": "val"}, shard_bytes=1)


@pytest.mark.parametrize("there", ["", "packed", f"packed/{PACKING}"])
@pytest.mark.parametrize("words", ["nothing to write", "no such folder"])
def test_a_writer_to_whom_nothing_was_given_leaves_the_folders_that_it_found(tmp_path, there, words):
    def given():
        if words == "no such folder":
            raise DataError(words)
        yield from ()

    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_dir())
    with pytest.raises(DataError, match=words):
        written(tmp_path / "packed", given())
    assert sorted(path for path in tmp_path.rglob("*") if path.is_dir()) == before
    assert list(written(tmp_path / "packed", [sample(0)])) == [sample(0)]


def test_nothing_to_write_is_an_error_with_the_reasons(tmp_path):
    with pytest.raises(DataError, match=r"no sample can be used(.|\n)*image is missing"), ShardWriter(tmp_path) as writer:
        writer.write(Sample((tmp_path / "no.jpg",), (conversation(0),), "a", "1"))
