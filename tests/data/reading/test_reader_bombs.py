"""One row never ends a run, and no file takes the machine: bytes of a member, a key, a header and a row are bounded."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tarfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.packs import jpeg
from tests.memory import peak_memory
from vlmkit.data.formats import formats
from vlmkit.data.reading import tars
from vlmkit.data.reading.tars import MAX_HEADER, MAX_HELD
from vlmkit.data.sample import Rejected, Sample
from vlmkit.data.shards import Shards
from vlmkit.data.shards.pack import pack

SECONDS, BYTES = 2.0, 300e6


def nested(depth: int) -> object:
    value: object = "x"
    for _ in range(depth):
        value = [value]
    return value


def row(picture: str = "a.jpg", **more: object) -> dict[str, object]:
    words = {"type": "text", "text": "What?", **more}
    return {
        "messages": [
            {"role": "user", "content": [{"type": "image", "path": picture}, words], **more},
            {"role": "assistant", "content": "A."},
        ]
    }


def folder(root: Path, lines: list[object]) -> Path:
    root.mkdir(exist_ok=True)
    (root / "a.jpg").write_bytes(jpeg(0))
    (root / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root


@pytest.mark.parametrize("depth", [3, 300, 600])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_unknown_field_is_dropped_however_deep(depth, workers, tmp_path):
    root = folder(tmp_path / "data", [row(), row(note=nested(depth)), row()])
    pack(formats["chat"](root), tmp_path / "packed", workers=workers)
    shards = Shards(tmp_path / "packed")
    assert [sample.conversations for sample in shards] == [shards[0].conversations] * 3
    assert shards[0].conversations[0][0] == {"role": "user", "content": [{"type": "image", "image": 0}, {"type": "text", "text": "What?"}]}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_sent_to_another_process_is_packed_here(workers, tmp_path):
    """Of a reader that is not registered, which nobody looks at."""
    said = row(note=nested(600))["messages"]
    assert isinstance(said, list)
    said[0]["content"][0] = {"type": "image", "image": 0}
    pack([Sample((jpeg(0),), (said,), "mine", str(number)) for number in range(3)], tmp_path / "packed", workers=workers)
    assert len(Shards(tmp_path / "packed")) == 3


def bounded(kind: str, root: Path, **options: object) -> tuple[list[Sample], list[Rejected]]:
    start = time.process_time()
    with peak_memory() as peak:
        items = list(formats[kind](root, **options))
    assert time.process_time() - start < SECONDS
    assert peak() < BYTES
    return [item for item in items if isinstance(item, Sample)], [item for item in items if isinstance(item, Rejected)]


def member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


SOUND = member("z.jpg", jpeg(0)) + member("z.txt", b"words")
END = bytes(1024)


def sparse(name: str, size: int) -> bytes:
    """A member that is all hole, as GNU tar writes it in pax headers."""
    fields = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": name, "GNU.sparse.size": str(size)}
    fields |= {"GNU.sparse.numblocks": "1", "GNU.sparse.map": f"{size},0"}
    info = tarfile.TarInfo(name)
    info.pax_headers = fields
    return info.tobuf(tarfile.PAX_FORMAT)


def test_sparse_members(tmp_path):
    data = b"".join(sparse(f"a.{number}.jpg", 500_000_000) for number in range(6)) + SOUND + END
    (tmp_path / "a.tar").write_bytes(data)
    samples, rejected = bounded("webdataset", tmp_path)
    assert [sample.id for sample in samples] == ["a/z"]
    assert [item.reason for item in rejected] == ["tar member is sparse"]


def test_zeros_in_a_packed_tar(tmp_path):
    head = tarfile.TarInfo("a.jpg")
    head.size = 300_000_256
    with gzip.open(tmp_path / "a.tgz", "wb", compresslevel=1) as file:
        file.write(head.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(300):
            file.write(bytes(1_000_000))
        file.write(bytes(256 + -head.size % 512) + SOUND + END)
    samples, rejected = bounded("webdataset", tmp_path)
    assert [sample.id for sample in samples] == ["a.tgz/z"]
    assert [item.reason for item in rejected] == ["tar member is too large"]


def test_members_of_a_key_are_bounded_together(tmp_path):
    part = bytes(MAX_HELD // 4)
    with open(tmp_path / "a.tar", "wb") as file:
        for number in range(6):
            file.write(member(f"a.{number}.jpg", part))
        file.write(SOUND + END)
    samples, rejected = bounded("webdataset", tmp_path)
    assert [sample.id for sample in samples] == ["a/z"]
    assert [item.reason for item in rejected] == ["sample is too large"]


def test_members_without_number(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "MAX_MEMBERS", 100)
    for count, samples, reason in ((100, 1, []), (101, 1, ["sample is too large"]), (201, 0, ["tar is cut short"])):
        (tmp_path / "a.tar").write_bytes(b"".join(member(f"a.{number}.jpg", b"x") for number in range(count)) + SOUND + END)
        found, rejected = bounded("webdataset", tmp_path)
        assert len(found) == samples
        assert [item.reason for item in rejected] == (reason or ["no answer"])
    names = b"".join(member(f"a.{'x' * 90}{number}.jpg", b"") for number in range(9))
    (tmp_path / "a.tar").write_bytes(names + END)
    monkeypatch.setattr(tars, "LONGEST_ID", 90)
    assert [item.reason for item in bounded("webdataset", tmp_path)[1]] == ["row has wrong fields"]


def test_zeros_without_end_in_a_packed_tar(tmp_path):
    head = tarfile.TarInfo("a.jpg")
    head.size = 1 << 32
    (tmp_path / "a.tgz").write_bytes(gzip.compress(head.tobuf(tarfile.USTAR_FORMAT) + bytes(10_000)))
    samples, rejected = bounded("webdataset", tmp_path)
    assert not samples
    assert "has 4294967296 bytes, of a compressed tar expected at most" in rejected[0].detail


def test_members_without_end_in_a_packed_tar(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "MAX_UNPACKED", 1 << 20)
    zeros = b"".join(member(f"{number}.jpg", bytes(300_000)) for number in range(40))
    (tmp_path / "a.tgz").write_bytes(gzip.compress(zeros + END))
    samples, rejected = bounded("webdataset", tmp_path)
    assert not samples
    assert "bytes unpack to more than" in rejected[-1].detail
    assert len(rejected) < 10


@pytest.mark.parametrize("form", [lzma.FORMAT_XZ, lzma.FORMAT_ALONE])
def test_an_xz_file_does_not_take_the_memory_that_it_asks_for(form, tmp_path):
    kind = lzma.FILTER_LZMA2 if form == lzma.FORMAT_XZ else lzma.FILTER_LZMA1
    packed = lzma.compress(SOUND + END, form, filters=[{"id": kind, "preset": 0, "dict_size": 1 << 29}])
    (tmp_path / "a.tar").write_bytes(packed)
    samples, rejected = bounded("webdataset", tmp_path)
    assert not samples
    assert [item.reason for item in rejected] == ["tar is cut short"]
    assert "Memory usage limit exceeded" in rejected[0].detail


@pytest.mark.parametrize(("form", "pieces"), [(lzma.FORMAT_XZ, 1), (lzma.FORMAT_XZ, 3), (lzma.FORMAT_ALONE, 1)])
def test_a_sound_xz_file_is_read(form, pieces, tmp_path):
    data = b"".join(member(f"{number}.jpg", jpeg(number)) + member(f"{number}.txt", b"words") for number in range(40)) + END
    length = len(data) // pieces + 1
    streams = [lzma.compress(data[at : at + length], form) for at in range(0, len(data), length)]
    (tmp_path / "a.tar").write_bytes(bytes(8).join(streams))
    samples, rejected = bounded("webdataset", tmp_path)
    assert ([sample.id for sample in samples], rejected) == ([f"a/{number}" for number in range(40)], [])


def test_an_xz_file_that_ends_early_is_said(tmp_path):
    data = b"".join(member(f"{number}.jpg", jpeg(number)) + member(f"{number}.txt", b"words") for number in range(40)) + END
    (tmp_path / "a.tar").write_bytes(lzma.compress(data)[:-40_000])
    samples, rejected = bounded("webdataset", tmp_path)
    assert len(samples) < 40
    assert [item.reason for item in rejected] == ["tar is cut short"]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_of_two_gigabytes(kind, tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 2 << 30
    with open(tmp_path / "a.tar", "wb") as file:
        file.write(SOUND + info.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(file.tell() + (2 << 30))  # a file with a hole
    samples, rejected = bounded("webdataset", tmp_path)
    assert [sample.id for sample in samples] == []
    assert [item.reason for item in rejected] == ["tar is cut short"]
    assert f"expected at most {MAX_HEADER}" in rejected[0].detail


def test_rows_that_share_a_large_value(tmp_path):
    value = b"\xff" * 200_000_000
    image = pa.DictionaryArray.from_arrays(pa.array([0] * 16, pa.int32()), pa.array([value], pa.binary()))
    table = pa.table({"images": image, "texts": pa.array(["x"] * 16)})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=["images"], dictionary_pagesize_limit=1 << 30)
    del table, image, value
    samples, rejected = bounded("cauldron", tmp_path)
    assert not samples
    assert "share values of 2000000" in rejected[0].detail


def test_a_path_of_two_million_characters(tmp_path):
    root = folder(tmp_path / "data", [row("x/" * 1_000_000), row("y" * 2_000_000), row()])
    samples, rejected = bounded("chat", root)
    assert len(samples) == 1
    assert [item.reason for item in rejected] == ["image is missing"] * 2


@pytest.mark.parametrize("where", ["before", "between", "after"])
def test_blanks_in_json(where, tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    said = {"id": "1", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A."}]}
    blanks, one = " " * 40_000_000, json.dumps(said)
    text = {"before": f"{blanks}[{one}]", "between": f"[{one},{blanks}{one}]", "after": f"[{one}]{blanks}"}[where]
    (tmp_path / "a.json").write_text(text)
    del blanks, text
    samples, rejected = bounded("llava", tmp_path)
    assert (len(samples), rejected) == (2 if where == "between" else 1, [])


def test_a_sound_tar_is_read_as_before(tmp_path):
    file = io.BytesIO(member("a/b.jpg", jpeg(1)) + member("a/b.txt", b"one") + SOUND + END)
    (tmp_path / "a.tar").write_bytes(file.getvalue())
    samples, rejected = bounded("webdataset", tmp_path)
    assert ([sample.id for sample in samples], rejected) == (["a/a/b", "a/z"], [])
