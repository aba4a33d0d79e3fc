"""Nothing that happens to shards on a disk gives other samples, or fewer, without a word."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.packs import conversation, jpeg
from vlmkit.data.sample import DataError, Sample
from vlmkit.data.shards import Shards, ShardWriter
from vlmkit.data.shards.index import CHECKED, INDEX, PACKING, ROW, ROWS, SIZES
from vlmkit.data.shards.pack import pack


def samples(count: int) -> list[Sample]:
    return [Sample((jpeg(number % 3, 8, 16),), (conversation(number),), "drawn", str(number)) for number in range(count)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shards") / "packed"
    with ShardWriter(directory, shard_bytes=20_000) as writer:
        for sample in samples(12):
            assert writer.write(sample)
    assert len(Shards(directory).summary.shards) > 1
    return directory


def seen(directory: Path) -> list[Any]:
    """All that shards give, read in every way."""
    shards = Shards(directory)
    found: list[Any] = [(sample.id, sample.source, sample.images, sample.conversations) for sample in shards]
    assert len(found) == len(shards)
    for number in range(len(shards)):
        found.append((shards.image_sizes(number), shards.source(number), shards.text_bytes(number), shards.without_images(number).id))
    found.append([table.tobytes() for table in (shards.tables.rows, shards.tables.sizes)])
    return found


def copied(sound: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(sound, target))


def detected_or_harmless(directory: Path, expected: list[Any], look: Callable[[Path], list[Any]] = seen) -> bool:
    """Whether the damage was seen."""
    try:
        assert look(directory) == expected
    except DataError as error:
        assert str(directory) in str(error)
        return True
    return False


@pytest.mark.parametrize("name", [INDEX, ROWS, SIZES])
def test_every_flipped_bit_is_detected_or_harmless(name, sound, tmp_path):
    """Of index.json what it says is compared, of the tables what all samples are."""

    def said(directory: Path) -> list[Any]:
        tables = Shards(directory)._index
        return [tables.summary, tables.checks]

    look = said if name == INDEX else seen
    expected = look(sound)
    directory = copied(sound, tmp_path / "packed")
    data = (directory / name).read_bytes()
    header = len(data) if name == INDEX else len(data) - np.load(directory / name).nbytes
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        (directory / name).write_bytes(changed)
        detected = detected_or_harmless(directory, expected, look)
        assert detected or bit < 8 * header  # blanks of JSON and of numpy's header mean nothing


EXTREMES = {"<u8": (0, 1, 2**31, 2**32, 2**63, 2**64 - 1), "<u4": (0, 1, 2**16, 2**31, 2**32 - 1)}


@pytest.mark.parametrize("checked", [True, False])
def test_every_field_at_its_extremes_is_detected_or_harmless(checked, sound, tmp_path):
    """Also in an index of version 1, which has no checksums: nothing is read outside, and no loop ends early."""
    directory = copied(sound, tmp_path / "packed")
    if not checked:
        as_version_1(directory)
    expected = seen(directory)
    rows = np.load(directory / ROWS)
    for field in ROW.names:
        for value in EXTREMES[ROW[field].str]:
            changed = rows.copy()
            changed[field][5] = value
            np.save(directory / ROWS, changed)
            if checked:
                assert detected_or_harmless(directory, expected) == (changed[field][5] != rows[field][5])
            else:
                try:
                    shards = Shards(directory)
                    assert len(list(shards)) == len(shards)
                    for number in range(len(shards)):
                        shards.image_sizes(number), shards.source(number)
                except DataError as error:
                    assert str(directory) in str(error)


def as_version_1(directory: Path) -> None:
    content = json.loads((directory / INDEX).read_text())
    del content["check"], content["checks"]
    (directory / INDEX).write_text(json.dumps(content | {"version": 1}))


def test_an_index_without_checksums_still_opens(sound, tmp_path):
    directory = copied(sound, tmp_path / "packed")
    as_version_1(directory)
    assert seen(directory) == seen(sound)


def test_rows_that_changed_places_are_seen(sound, tmp_path):
    directory = copied(sound, tmp_path / "packed")
    rows = np.load(directory / ROWS)
    rows[[2, 3]] = rows[[3, 2]]
    np.save(directory / ROWS, rows)
    with pytest.raises(DataError, match=r"rows.npy, rows 0 to 11: the bytes are not those that were written"):
        Shards(directory)[0]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"samples": 5}, "not what was written"),
        ({"version": 3}, "of version 3"),
        ({"version": 1}, "of version 1"),
        ({"sources": []}, "not what was written"),
    ],
)
def test_a_changed_index_is_seen(change, match, sound, tmp_path):
    directory = copied(sound, tmp_path / "packed")
    content = json.loads((directory / INDEX).read_text())
    (directory / INDEX).write_text(json.dumps(content | change))
    with pytest.raises(DataError, match=match):
        Shards(directory)


@pytest.mark.parametrize("name", ["../outside.tar", "/etc/passwd", "a/b.tar", "", "..", 7])
def test_a_shard_lies_beside_its_index(name, sound, tmp_path):
    directory = copied(sound, tmp_path / "packed")
    as_version_1(directory)
    content = json.loads((directory / INDEX).read_text())
    content["shards"][0]["name"] = name
    (directory / INDEX).write_text(json.dumps(content))
    with pytest.raises(DataError, match="expected a file beside it"):
        Shards(directory)


@pytest.mark.parametrize("name", [INDEX, ROWS, SIZES, "shard-000000.tar"])
def test_a_pipe_does_not_hang(name, sound, tmp_path):
    directory = copied(sound, tmp_path / "packed")
    (directory / name).unlink()
    os.mkfifo(directory / name)
    with pytest.raises(DataError):
        Shards(directory)[0]


def test_a_pipe_as_an_image_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with ShardWriter(tmp_path / "packed") as writer:
        assert not writer.write(Sample((tmp_path / "pipe.jpg",), (conversation(0),), "a", "1"))
        assert writer.write(samples(1)[0])


def test_a_table_of_several_blocks(tmp_path):
    """Only the block that is read is compared."""
    from vlmkit.data.shards.index import Shard, Summary, open_index, written_index

    count = 2 * CHECKED + 10
    rows = np.zeros(count, ROW)
    rows["first_image"], rows["images"] = np.arange(count), 1
    sizes = np.full((count, 2), 30, "<u4")
    np.save(tmp_path / ROWS, rows)
    np.save(tmp_path / SIZES, sizes)
    summary = Summary(count, count, ("a",), (Shard("shard-000000.tar", count, 100),), {}, {})
    (tmp_path / INDEX).write_bytes(written_index(summary, {ROWS: rows, SIZES: sizes}))
    with open(tmp_path / ROWS, "r+b") as file:
        file.seek((tmp_path / ROWS).stat().st_size - rows.nbytes + 52 * (CHECKED + 3))
        file.write(struct.pack("<Q", 7))
    index = open_index(tmp_path)
    assert index.row(CHECKED - 1).first_image == CHECKED - 1
    assert index.row(2 * CHECKED).first_image == 2 * CHECKED
    for touch in (lambda: index.row(CHECKED), index.check):
        with pytest.raises(DataError, match=f"rows {CHECKED} to {2 * CHECKED - 1}"):
            touch()


class Stopped(Exception):  # noqa: N818
    pass


def stopping(items: Iterable[Sample], after: int) -> Iterable[Sample]:
    for number, item in enumerate(items):
        if number == after:
            raise Stopped
        yield item


def begun(directory: Path) -> None:
    with pytest.raises(Stopped):
        pack(stopping(samples(60), 50), directory, workers=0, shard_bytes=20_000)
    assert (directory / PACKING).is_dir()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_changed_between_two_runs_is_seen(workers, tmp_path):
    begun(tmp_path / "packed")
    shard = tmp_path / "packed" / "shard-000001.tar"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"a shard changed since it was written: .*shard-000001.tar"):
        pack(samples(60), tmp_path / "packed", workers=workers, shard_bytes=20_000)
    assert not (tmp_path / "packed" / INDEX).exists()


@pytest.mark.parametrize("table", [ROWS, SIZES])
def test_notes_that_changed_between_two_runs_are_seen(table, tmp_path):
    begun(tmp_path / "packed")
    file = tmp_path / "packed" / PACKING / f"000001.{table}"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"remove .* and pack again"):
        pack(samples(60), tmp_path / "packed", workers=0, shard_bytes=20_000)


def test_a_kill_at_the_very_end_leaves_nothing_behind(sound, tmp_path):
    directory = copied(sound, tmp_path / "packed")
    (directory / f"{PACKING}.over").mkdir()
    (directory / f"{PACKING}.over" / "job.json").write_text("{}")
    with pytest.raises(DataError, match="holds packed samples already"):
        ShardWriter(directory)
    assert not (directory / f"{PACKING}.over").exists()
    assert seen(directory) == seen(sound)
